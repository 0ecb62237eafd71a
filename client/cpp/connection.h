// A channel and the metadata that all calls of a client share.

#ifndef BACKBONED_CLIENT_CPP_CONNECTION_H_
#define BACKBONED_CLIENT_CPP_CONNECTION_H_

#include <google/protobuf/message_lite.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "backboned/v1/backbone_service.grpc.pb.h"
#include "backboned/v1/instance_service.grpc.pb.h"
#include "client/cpp/calls.h"
#include "client/cpp/error.h"
#include "client/cpp/options.h"
#include "client/cpp/retry.h"

namespace backboned::client {

// A channel, and the client's metadata for every call on it.
//
// Thread-safe.
class Connection {
 public:
  // Makes a connection over `channel`, to `target` if that is not empty. Draws
  // a session if `options` have none.
  Connection(std::shared_ptr<grpc::Channel> channel, Options options,
             std::string target = "");
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

  const Options& options() const { return options_; }

  v1::InstanceService::Stub& instances() const { return *instances_; }
  v1::BackboneService::Stub& backbones() const { return *backbones_; }

  // The stream of the connection's calls.
  Calls& calls() const { return *calls_; }

  // Gives an attempt of a call `left` time, and the metadata. Returns
  // kUnauthenticated if there is no token, though there is to be one.
  absl::Status Prepare(grpc::ClientContext& context, absl::Duration left) const;

  // Gives a change a request id if it has none and may be repeated.
  template <typename Header>
  void NameChange(Header& header) const {
    if constexpr (requires { header.request_id(); }) {
      const bool may_repeat = options_.retry_timeout > absl::ZeroDuration();
      if (may_repeat && header.request_id().empty() && IsChange(header)) {
        header.set_request_id(RandomId());
      }
    }
  }

  // Makes a call of one message each way.
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Ask(
      Stub& stub,
      grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                   Response*),
      Request request) const {
    NameChange(request);
    return Retry(
        options_, [&](absl::Duration left) -> absl::StatusOr<Response> {
          grpc::ClientContext context;
          absl::Status status = Prepare(context, left);
          if (!status.ok()) return status;
          Response response;
          status = ToStatus((stub.*method)(&context, request, &response));
          if (!status.ok()) return status;
          return response;
        });
  }

 private:
  // Returns whether a request with an id changes something. A forward may not.
  static bool IsChange(const google::protobuf::MessageLite&) { return true; }
  static bool IsChange(const v1::ForwardHeader& header) {
    return header.training() || header.tape();
  }

  // Returns 128 random bits, as hexadecimal digits.
  static std::string RandomId();

  std::shared_ptr<grpc::Channel> channel_;
  Options options_;
  std::unique_ptr<v1::InstanceService::Stub> instances_;
  std::unique_ptr<v1::BackboneService::Stub> backbones_;
  std::unique_ptr<Calls> calls_;
};

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_CONNECTION_H_
