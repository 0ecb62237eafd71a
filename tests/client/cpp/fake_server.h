// A server in this process, on its own port, whose data service is generated
// code: the client's messages are plain protobuf to it.

#ifndef BACKBONED_TESTS_CLIENT_CPP_FAKE_SERVER_H_
#define BACKBONED_TESTS_CLIENT_CPP_FAKE_SERVER_H_

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

// Serves an instance whose forward is PlusOne. Each method runs `hook` first,
// and ends with its status if that is not OK.
class FakeBackbones final : public v1::BackboneService::Service {
 public:
  using ForwardStream =
      grpc::ServerReaderWriter<v1::ForwardResponse, v1::ForwardRequest>;
  using BackwardStream =
      grpc::ServerReaderWriter<v1::BackwardResponse, v1::BackwardRequest>;

  std::function<grpc::Status(grpc::ServerContext&)> hook;
  // Changes an answer of GetParams before it is sent.
  std::function<void(v1::GetParamsResponse&)> damage = [](auto&) {};
  // Returns how an answered GetParams ends.
  std::function<grpc::Status()> end = [] { return grpc::Status::OK; };
  std::string params;
  std::string grads;
  std::string buffers;
  v1::ForwardHeader forward_header;
  v1::BackwardHeader backward_header;
  v1::SetParamsHeader set_params_header;

  grpc::Status Forward(grpc::ServerContext* context,
                       ForwardStream* stream) override;
  grpc::Status Backward(grpc::ServerContext* context,
                        BackwardStream* stream) override;
  grpc::Status ReleaseTapes(grpc::ServerContext* context,
                            const v1::ReleaseTapesRequest* request,
                            v1::ReleaseTapesResponse* response) override;
  grpc::Status GetParams(
      grpc::ServerContext* context, const v1::GetParamsRequest* request,
      grpc::ServerWriter<v1::GetParamsResponse>* writer) override;
  grpc::Status SetParams(grpc::ServerContext* context,
                         grpc::ServerReader<v1::SetParamsRequest>* reader,
                         v1::SetParamsResponse* response) override;
  grpc::Status GetGrads(
      grpc::ServerContext* context, const v1::GetGradsRequest* request,
      grpc::ServerWriter<v1::GetGradsResponse>* writer) override;
  grpc::Status SetGrads(grpc::ServerContext* context,
                        grpc::ServerReader<v1::SetGradsRequest>* reader,
                        v1::SetGradsResponse* response) override;
  grpc::Status ZeroGrads(grpc::ServerContext* context,
                         const v1::ZeroGradsRequest* request,
                         v1::ZeroGradsResponse* response) override;
  grpc::Status GetBuffers(
      grpc::ServerContext* context, const v1::GetBuffersRequest* request,
      grpc::ServerWriter<v1::GetBuffersResponse>* writer) override;
  grpc::Status SetBuffers(grpc::ServerContext* context,
                          grpc::ServerReader<v1::SetBuffersRequest>* reader,
                          v1::SetBuffersResponse* response) override;
  grpc::Status Extract(grpc::ServerContext* context,
                       const v1::ExtractRequest* request,
                       v1::ExtractResponse* response) override;

 private:
  grpc::Status RunHook(grpc::ServerContext* context);
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
  FakeServer();
  ~FakeServer();

  std::string target() const;

  FakeBackbones backbones;
  FakeInstances instances;

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

// Returns the status of an error as the server sends it, details included.
grpc::Status ErrorOf(grpc::StatusCode code, const std::string& message,
                     const v1::ErrorDetail& detail);

}  // namespace backboned::client

#endif  // BACKBONED_TESTS_CLIENT_CPP_FAKE_SERVER_H_
