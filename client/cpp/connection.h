// What all calls of a client share.

#ifndef BACKBONED_CLIENT_CPP_CONNECTION_H_
#define BACKBONED_CLIENT_CPP_CONNECTION_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "backboned/v1/backbone_service.grpc.pb.h"
#include "backboned/v1/instance_service.grpc.pb.h"
#include "client/cpp/error.h"
#include "client/cpp/options.h"

namespace backboned::client {

// A channel, and what every call on it says of the client.
//
// Thread-safe.
class Connection {
 public:
  // Makes a connection over `channel`. Draws a session if `options` name none.
  Connection(std::shared_ptr<grpc::Channel> channel, Options options);

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  const Options& options() const { return options_; }

  v1::InstanceService::Stub& instances() const { return *instances_; }
  v1::BackboneService::Stub& backbones() const { return *backbones_; }

  // Gives a new call its deadline and metadata.
  void Prepare(grpc::ClientContext& context) const;

  // Makes one call of one message each way.
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Ask(
      Stub& stub,
      grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                   Response*),
      const Request& request) const {
    grpc::ClientContext context;
    Prepare(context);
    Response response;
    const grpc::Status status = (stub.*method)(&context, request, &response);
    if (!status.ok()) return ToStatus(status);
    return response;
  }

 private:
  std::shared_ptr<grpc::Channel> channel_;
  Options options_;
  std::unique_ptr<v1::InstanceService::Stub> instances_;
  std::unique_ptr<v1::BackboneService::Stub> backbones_;
};

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_CONNECTION_H_
