// bench-plain ELEMENTS: serves GetParams and SetParams by generated code alone,
// over one vector of parameters: the server that one would write first.
//
// Prints its address, and serves until its standard input ends.

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iostream>
#include <string>
#include <vector>

#include "backboned/v1/backbone_service.grpc.pb.h"

namespace backboned::bench {
namespace {

constexpr size_t kChunkBytes = size_t{1} << 20;

class PlainService final : public v1::BackboneService::Service {
 public:
  explicit PlainService(size_t elements) : params_(elements) {}

  grpc::Status GetParams(
      grpc::ServerContext*, const v1::GetParamsRequest*,
      grpc::ServerWriter<v1::GetParamsResponse>* writer) override {
    v1::GetParamsResponse message;
    message.mutable_header()->mutable_spec()->add_shape(
        static_cast<int64_t>(params_.size()));
    bool open = writer->Write(message);
    message.clear_header();
    const size_t bytes = params_.size() * sizeof(float);
    for (size_t at = 0; open && at < bytes; at += kChunkBytes) {
      const size_t size = std::min(kChunkBytes, bytes - at);
      message.mutable_chunk()->set_offset(static_cast<int64_t>(at));
      message.mutable_chunk()->set_data(Bytes() + at, size);
      open = writer->Write(message);
    }
    return grpc::Status::OK;
  }

  grpc::Status SetParams(grpc::ServerContext*,
                         grpc::ServerReader<v1::SetParamsRequest>* reader,
                         v1::SetParamsResponse*) override {
    v1::SetParamsRequest message;
    size_t received = 0;
    while (reader->Read(&message)) {
      const std::string& data = message.chunk().data();
      if (data.size() > params_.size() * sizeof(float) - received) {
        return {grpc::StatusCode::INVALID_ARGUMENT, "too many bytes"};
      }
      std::memcpy(Bytes() + received, data.data(), data.size());
      received += data.size();
    }
    return grpc::Status::OK;
  }

 private:
  char* Bytes() { return reinterpret_cast<char*>(params_.data()); }

  std::vector<float> params_;
};

int Main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: bench-plain ELEMENTS\n";
    return 2;
  }
  PlainService service(std::stoul(argv[1]));
  grpc::ServerBuilder builder;
  constexpr int kStreamBytes = 4 << 20;
  builder.AddChannelArgument("grpc.http2.max_frame_size", kStreamBytes);
  builder.AddChannelArgument("grpc.http2.lookahead_bytes", kStreamBytes);
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                           &port);
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  std::cout << "127.0.0.1:" << port << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) {
  }
  server->Shutdown();
  return 0;
}

}  // namespace
}  // namespace backboned::bench

int main(int argc, char** argv) { return backboned::bench::Main(argc, argv); }
