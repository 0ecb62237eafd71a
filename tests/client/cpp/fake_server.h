// A server in this process, on its own port, whose data service is generated
// code: the client's messages are plain protobuf to it.

#ifndef BACKBONED_TESTS_CLIENT_CPP_FAKE_SERVER_H_
#define BACKBONED_TESTS_CLIENT_CPP_FAKE_SERVER_H_

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_context.h>

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "backboned/v1/backbone_service.grpc.pb.h"
#include "backboned/v1/error.pb.h"
#include "backboned/v1/instance_service.grpc.pb.h"

namespace backboned::client {

// Adds 1 to every byte.
std::string PlusOne(std::string bytes);

// Serves an instance whose forward is PlusOne. Each call runs `hook` at its
// header, and ends with its status if that is not OK.
class FakeBackbones final : public v1::BackboneService::Service {
 public:
  using CallStream =
      grpc::ServerReaderWriter<v1::CallsResponse, v1::CallsRequest>;

  std::function<grpc::Status(grpc::ServerContext&)> hook;
  // Changes each part of an answer but the last one before it is sent.
  std::function<void(v1::CallsResponse&)> damage = [](auto&) {};
  // Returns how an answered call ends.
  std::function<grpc::Status()> end = [] { return grpc::Status::OK; };
  // Returns whether the stream ends in place of a call's last part.
  std::function<bool()> breaks_now = [] { return false; };
  std::string params;
  std::string grads;
  std::string buffers;
  v1::ForwardHeader forward_header;
  v1::BackwardHeader backward_header;
  v1::SetParamsHeader set_params_header;

  grpc::Status Calls(grpc::ServerContext* context, CallStream* stream) override;
  grpc::Status Extract(grpc::ServerContext* context,
                       const v1::ExtractRequest* request,
                       v1::ExtractResponse* response) override;

 private:
  std::string Serve(const v1::CallsRequest& request, const std::string& bytes,
                    v1::CallsResponse& answer);
  bool Answer(CallStream& stream, const v1::CallsRequest& request,
              const std::string& bytes);
};

// Remembers the metadata of the last call and knows one instance, `net`.
class FakeInstances final : public v1::InstanceService::Service {
 public:
  std::multimap<std::string, std::string> metadata;

  grpc::Status GetServer(grpc::ServerContext* context,
                         const v1::GetServerRequest* request,
                         v1::GetServerResponse* response) override;
  grpc::Status CreateInstance(grpc::ServerContext* context,
                              const v1::CreateInstanceRequest* request,
                              v1::CreateInstanceResponse* response) override;
  grpc::Status CloneInstance(grpc::ServerContext* context,
                             const v1::CloneInstanceRequest* request,
                             v1::CloneInstanceResponse* response) override;
  grpc::Status GetInstance(grpc::ServerContext* context,
                           const v1::GetInstanceRequest* request,
                           v1::GetInstanceResponse* response) override;
  grpc::Status ListInstances(grpc::ServerContext* context,
                             const v1::ListInstancesRequest* request,
                             v1::ListInstancesResponse* response) override;
  grpc::Status DeleteInstance(grpc::ServerContext* context,
                              const v1::DeleteInstanceRequest* request,
                              v1::DeleteInstanceResponse* response) override;
};

// Serves from its construction to its destruction.
class FakeServer {
 public:
  explicit FakeServer(const std::shared_ptr<grpc::ServerCredentials>&
                          credentials = grpc::InsecureServerCredentials());
  ~FakeServer();

  std::string target() const;

  FakeBackbones backbones;
  FakeInstances instances;

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

// Returns the spec of `bytes` as a tensor.
v1::TensorSpec ByteSpec(const std::string& bytes);

// Returns the status of an error as the server sends it, details included.
grpc::Status ErrorOf(grpc::StatusCode code, const std::string& message,
                     const v1::ErrorDetail& detail);

}  // namespace backboned::client

#endif  // BACKBONED_TESTS_CLIENT_CPP_FAKE_SERVER_H_
