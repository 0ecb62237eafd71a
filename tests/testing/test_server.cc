#include "tests/testing/test_server.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/sync_stream.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "backbones/initial_draw.h"
#include "backbones/state.h"
#include "client/cpp/error.h"
#include "server/memory/memory_allocator.h"
#include "server/rpc/rpc_server.h"
#include "server/server.h"
#include "tests/testing/fake_architecture.h"

namespace backboned {
namespace {

// Counts tensors' memory from the first one on, as the real server does.
std::vector<c10::Device> Devices() {
  CpuMemory();
  return {c10::Device(c10::DeviceType::CPU)};
}

void AppendVarint(std::string& bytes, uint64_t value) {
  for (; value >= 0x80; value >>= 7) {
    bytes.push_back(static_cast<char>(value | 0x80));
  }
  bytes.push_back(static_cast<char>(value));
}

// Appends a field of bytes.
void AppendField(std::string& bytes, char tag, std::string_view value) {
  bytes.push_back(tag);
  AppendVarint(bytes, value.size());
  bytes.append(value);
}

std::string Chunk(int64_t offset, std::string_view data) {
  std::string chunk = "\x08";
  AppendVarint(chunk, static_cast<uint64_t>(offset));
  AppendField(chunk, '\x12', data);
  return chunk;
}

}  // namespace

struct TestServer::Parts {
  explicit Parts(const TestServerOptions& wanted)
      : size(wanted.size),
        options({.listeners = rpc::ParseListeners(wanted.listen).value()}),
        server(Devices(), /*threads=*/1,
               {.limits = wanted.limits, .answers = wanted.answers}, {},
               wanted.clock != nullptr ? *wanted.clock : MonotonicClock()) {
    Start();
  }

  void Start() {
    rpc.reset();  // Frees its addresses.
    rpc = rpc::RpcServer::Start(server, options).value();
    channel = options.listeners.empty()
                  ? rpc->InProcessChannel()
                  : grpc::CreateChannel(rpc->addresses()[0],
                                        grpc::InsecureChannelCredentials());
  }

  std::shared_ptr<const FakeArchitecture> Add(const std::string& name,
                                              const std::string& owner) {
    auto architecture = std::make_shared<const FakeArchitecture>(size);
    StatePtr state =
        InitialState(architecture->layout(), SeededGenerator(0), at::kCPU);
    const absl::Status added = server.registry().Add(std::make_shared<Instance>(
        Instance::Identity{
            .name = name, .owner = owner, .created = absl::Now()},
        architecture, *server.workers().front(), std::move(state), Settings{},
        server.cache_room()));
    if (!added.ok()) std::abort();
    return architecture;
  }

  const int64_t size;
  const rpc::RpcServer::Options options;
  Server server;
  std::shared_ptr<const FakeArchitecture> fake;
  std::unique_ptr<rpc::RpcServer> rpc;
  std::shared_ptr<grpc::Channel> channel;
};

TestServer::TestServer(const TestServerOptions& options)
    : parts_(std::make_unique<Parts>(options)) {
  parts_->fake = parts_->Add("fake", "local");
}

TestServer::~TestServer() = default;

const std::shared_ptr<grpc::Channel>& TestServer::channel() const {
  return parts_->channel;
}

void TestServer::AddFake(const std::string& name,
                         const std::string& owner) const {
  parts_->Add(name, owner);
}

void TestServer::OnForward(std::function<void()> hook) const {
  parts_->fake->OnForward(std::move(hook));
}

void TestServer::OnBackward(std::function<void()> hook) const {
  parts_->fake->OnBackward(std::move(hook));
}

int64_t TestServer::forward_count() const {
  return parts_->fake->forward_count();
}

void TestServer::SetUsers(const Users& users) const {
  parts_->server.directory().SetUsers(users);
  parts_->rpc->RecheckCallers();
}

int64_t TestServer::in_flight_bytes() const {
  return parts_->server.in_flight().used();
}

int64_t TestServer::tape_count() const {
  return parts_->server.tapes().TotalFigures().count;
}

int64_t TestServer::tape_bytes() const {
  return parts_->server.tapes().TotalFigures().bytes;
}

void TestServer::SweepAfter(absl::Duration time) const {
  parts_->server.Sweep(parts_->server.clock().Now() + time);
}

void TestServer::Drain() const { parts_->rpc->Drain(absl::Minutes(1)); }

void TestServer::Settle() {
  Drain();
  parts_->Start();
}

struct RawCall::Stream {
  grpc::ClientContext context;
  std::string method;  // gRPC keeps a pointer to it.
  std::unique_ptr<grpc::ClientReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>>
      stream;
  bool half_closed = false;
  bool ended = false;
};

RawCall::RawCall(const std::shared_ptr<grpc::Channel>& channel,
                 std::string_view method)
    : RawCall(channel, method, Options()) {}

RawCall::RawCall(const std::shared_ptr<grpc::Channel>& channel,
                 std::string_view method, const Options& options)
    : stream_(std::make_unique<Stream>()) {
  stream_->method = std::string(method);
  if (!method.starts_with('/')) {
    stream_->method =
        absl::StrCat("/backboned.v1.BackboneService/", stream_->method);
  }
  stream_->context.set_deadline(
      absl::ToChronoTime(absl::Now() + options.timeout));
  for (const auto& [key, value] : options.metadata) {
    stream_->context.AddMetadata(key, value);
  }
  stream_->stream.reset(
      grpc::internal::
          ClientReaderWriterFactory<grpc::ByteBuffer, grpc::ByteBuffer>::Create(
              channel.get(),
              grpc::internal::RpcMethod(
                  stream_->method.c_str(),
                  grpc::internal::RpcMethod::BIDI_STREAMING, channel),
              &stream_->context));
}

RawCall::~RawCall() {
  if (stream_->ended) return;
  Cancel();
  End().IgnoreError();
}

bool RawCall::Send(std::string_view message) {
  const grpc::Slice slice(message.data(), message.size());
  return stream_->stream->Write(grpc::ByteBuffer(&slice, 1));
}

void RawCall::HalfClose() {
  if (!std::exchange(stream_->half_closed, true)) stream_->stream->WritesDone();
}

std::optional<std::string> RawCall::Receive() {
  grpc::ByteBuffer buffer;
  if (!stream_->stream->Read(&buffer)) return std::nullopt;
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok()) return std::nullopt;
  std::string message;
  for (const grpc::Slice& slice : slices) {
    message.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return message;
}

void RawCall::Cancel() { stream_->context.TryCancel(); }

absl::Status RawCall::End() {
  HalfClose();
  while (std::optional<std::string> message = Receive()) {
    messages_.push_back(*std::move(message));
  }
  stream_->ended = true;
  return client::ToStatus(stream_->stream->Finish());
}

std::string Message(const google::protobuf::MessageLite& header) {
  std::string message;
  AppendField(message, '\x0a', header.SerializeAsString());
  return message;
}

std::string Message(int64_t offset, std::string_view data) {
  std::string message;
  AppendField(message, '\x12', Chunk(offset, data));
  return message;
}

std::string Message(const google::protobuf::MessageLite& header, int64_t offset,
                    std::string_view data) {
  return Message(header) + Message(offset, data);
}

std::string Bytes(const std::vector<float>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()),
                     values.size() * sizeof(float));
}

std::vector<float> Floats(std::string_view bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::ranges::copy(bytes.substr(0, values.size() * sizeof(float)),
                    reinterpret_cast<char*>(values.data()));
  return values;
}

}  // namespace backboned
