#include "server/rpc/rpc_server.h"

#include <grpc/grpc.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"

namespace backboned::rpc {
namespace {

// Frames as large as our messages. The quota bounds received bytes that wait
// for a slow handler, since they are outside of our own budgets.
constexpr int kFrameBytes = 4 << 20;
constexpr size_t kQuotaBytes = size_t{1} << 30;

// The bounds of the time that a drain allows for the last messages of ended
// calls.
constexpr absl::Duration kMinLastMessages = absl::Milliseconds(100);
constexpr absl::Duration kMaxLastMessages = absl::Seconds(2);

// gRPC's shutdown cancels the calls that come after its start, so it starts
// when no call came for this long: calls on their way have been refused then.
constexpr absl::Duration kQuiet = absl::Milliseconds(50);

// Hardening and flow control of HTTP/2 (docs/limits.md says why).
void SetChannelArguments(grpc::ServerBuilder& builder) {
  builder.AddChannelArgument("grpc.so_reuseport", 0);
  builder.AddChannelArgument("grpc.http2.max_frame_size", kFrameBytes);
  builder.AddChannelArgument("grpc.http2.lookahead_bytes", kFrameBytes);
  builder.AddChannelArgument("grpc.max_concurrent_streams", 64);
  builder.AddChannelArgument("grpc.max_metadata_size", 8192);
  builder.AddChannelArgument("grpc.keepalive_time_ms", 20'000);
  builder.AddChannelArgument("grpc.keepalive_timeout_ms", 10'000);
  builder.AddChannelArgument("grpc.keepalive_permit_without_calls", 1);
  builder.AddChannelArgument("grpc.http2.min_ping_interval_without_data_ms",
                             5'000);
  for (grpc_compression_algorithm algorithm :
       {GRPC_COMPRESS_DEFLATE, GRPC_COMPRESS_GZIP}) {
    builder.SetCompressionAlgorithmSupportStatus(algorithm, false);
  }
}

// gRPC stays up until the process ends: its shutdown, when the last server
// goes, can wait ten seconds for a poller of its own.
void KeepGrpc() {
  static std::once_flag once;
  std::call_once(once, [] { grpc_init(); });
}

}  // namespace

RpcServer::RpcServer(Server& server)
    : gate_(server.limits().max_calls, server.limits().quotas),
      watchdog_(server.limits().stall_timeout, server.clock()),
      streams_(server.limits().max_streams, server.limits().quotas),
      surroundings_{.server = server,
                    .gate = gate_,
                    .watchdog = watchdog_,
                    .streams = streams_,
                    .metrics = metrics_},
      instance_service_(surroundings_),
      backbone_service_(surroundings_),
      health_service_(surroundings_),
      reflection_service_({"backboned.v1.BackboneService",
                           "backboned.v1.InstanceService",
                           "grpc.health.v1.Health"}) {}

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(
    Server& server, const Options& options) {
  std::unique_ptr<RpcServer> rpc_server(new RpcServer(server));
  absl::Status status = rpc_server->Claim(options);
  if (status.ok()) status = rpc_server->Build(options);
  if (status.ok()) status = rpc_server->Open(options);
  if (!status.ok()) return status;
  return rpc_server;
}

absl::Status RpcServer::Claim(const Options& options) {
  for (const Listener& listener : options.listeners) {
    const ListenAddress& address = listener.address;
    absl::Status local =
        options.insecure_remote ? absl::OkStatus() : CheckLocal(address);
    if (!local.ok()) return local;
    absl::StatusOr<AddressClaim> claim = AddressClaim::Make(address);
    if (!claim.ok()) return claim.status();
    claims_.push_back(*std::move(claim));
    addresses_.push_back(address.text);
  }
  return absl::OkStatus();
}

absl::Status RpcServer::Build(const Options& options) {
  KeepGrpc();
  grpc::ServerBuilder builder;
  SetChannelArguments(builder);
  grpc::ResourceQuota quota("backboned");
  quota.Resize(kQuotaBytes);
  builder.SetResourceQuota(quota);
  std::vector<int> ports(addresses_.size(), -1);
  for (size_t i = 0; i < addresses_.size(); ++i) {
    const Listener& listener = options.listeners[i];
    if (listener.by_account) {
      if (accounts_ == nullptr) {
        accounts_ = std::make_unique<AccountAcceptor>(builder);
      }
      continue;
    }
    builder.AddListeningPort(addresses_[i], CredentialsOf(listener), &ports[i]);
  }
  builder.RegisterService(&instance_service_);
  builder.RegisterService(&backbone_service_);
  builder.RegisterService(&health_service_);
  if (options.reflection) builder.RegisterService(&reflection_service_);
  std::unique_ptr<grpc::ServerCompletionQueue> queue =
      builder.AddCompletionQueue();
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", absl::StrJoin(addresses_, ", ")));
  }
  thread_ = std::make_unique<CompletionThread>(
      std::move(queue), *surroundings_.server.workers().front());
  instance_service_.Serve(*thread_);
  backbone_service_.Serve(*thread_);
  health_service_.Serve(*thread_);
  if (options.reflection) reflection_service_.Serve(*thread_);
  for (size_t i = 0; i < addresses_.size(); ++i) {
    if (!addresses_[i].ends_with(":0")) continue;
    addresses_[i] = absl::StrCat(
        addresses_[i].substr(0, addresses_[i].size() - 1), ports[i]);
  }
  return absl::OkStatus();
}

// Opens the Unix sockets to others, which until now are the server's own.
absl::Status RpcServer::Open(const Options& options) {
  for (const Listener& listener : options.listeners) {
    absl::Status status = absl::OkStatus();
    if (listener.by_account) status = accounts_->Listen(listener.address);
    if (status.ok()) status = Admit(listener);
    if (!status.ok()) return status;
  }
  if (accounts_ != nullptr) accounts_->Start();
  return absl::OkStatus();
}

RpcServer::~RpcServer() { Drain(absl::ZeroDuration()); }

std::shared_ptr<grpc::Channel> RpcServer::InProcessChannel() {
  return server_->InProcessChannel(grpc::ChannelArguments());
}

void RpcServer::RecheckCallers() {
  Post(thread_->queue(), [this] {
    streams_.RecheckAll();
    health_service_.RecheckCallers();
  });
}

void RpcServer::Drain(absl::Duration grace) {
  if (thread_ == nullptr) return;
  gate_.Drain();
  Post(thread_->queue(), [this] {
    health_service_.Drain();
    streams_.DrainAll();
  });
  const Clock& clock = surroundings_.server.clock();
  const absl::Time end = clock.Now() + grace;
  gate_.WaitUntilEmpty(grace);
  gate_.WaitUntilQuiet(kQuiet, std::min(end - clock.Now(), kMaxLastMessages));
  // Calls that are still inside are cancelled; handlers notice and return.
  const absl::Duration rest =
      std::clamp(end - clock.Now(), kMinLastMessages, kMaxLastMessages);
  if (accounts_ != nullptr) accounts_->End();
  server_->Shutdown(absl::ToChronoTime(absl::Now() + rest));
  server_->Wait();
  thread_.reset();
}

}  // namespace backboned::rpc
