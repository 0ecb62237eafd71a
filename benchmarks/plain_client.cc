#include "benchmarks/plain_client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace backboned::bench {
namespace {

constexpr int kStreamBytes = 4 << 20;
constexpr size_t kChunkBytes = size_t{1} << 20;

void Check(const grpc::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.error_message());
}

}  // namespace

PlainClient::PlainClient(const std::string& target) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kStreamBytes);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kStreamBytes);
  stub_ = v1::BackboneService::NewStub(grpc::CreateCustomChannel(
      target, grpc::InsecureChannelCredentials(), arguments));
}

void PlainClient::GetParams(const std::string& instance,
                            std::span<std::byte> destination) const {
  grpc::ClientContext context;
  v1::GetParamsRequest request;
  request.set_instance(instance);
  const auto reader = stub_->GetParams(&context, request);
  v1::GetParamsResponse message;
  size_t received = 0;
  while (reader->Read(&message)) {
    const std::string& data = message.chunk().data();
    if (data.size() > destination.size() - received) {
      throw std::runtime_error("the answer is too long");
    }
    std::memcpy(destination.data() + received, data.data(), data.size());
    received += data.size();
  }
  Check(reader->Finish());
  if (received != destination.size()) {
    throw std::runtime_error("the answer is too short");
  }
}

void PlainClient::SetParams(const std::string& instance,
                            std::span<const std::byte> source) const {
  grpc::ClientContext context;
  v1::SetParamsResponse response;
  const auto writer = stub_->SetParams(&context, &response);
  v1::SetParamsRequest message;
  v1::SetParamsHeader& header = *message.mutable_header();
  header.set_instance(instance);
  header.mutable_spec()->set_dtype(v1::DATA_TYPE_FLOAT32);
  header.mutable_spec()->add_shape(
      static_cast<int64_t>(source.size() / sizeof(float)));
  bool open = writer->Write(message);
  message.clear_header();
  for (size_t at = 0; open && at < source.size(); at += kChunkBytes) {
    const size_t size = std::min(kChunkBytes, source.size() - at);
    message.mutable_chunk()->set_offset(static_cast<int64_t>(at));
    message.mutable_chunk()->set_data(source.data() + at, size);
    open = writer->Write(message);
  }
  writer->WritesDone();
  Check(writer->Finish());
}

}  // namespace backboned::bench
