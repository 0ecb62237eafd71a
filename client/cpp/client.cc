#include "client/cpp/client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace backboned::client {
namespace {

using Stub = v1::InstanceService::Stub;

// Frames and window for chunks of a MiB.
constexpr int kStreamBytes = 4 << 20;

grpc::ChannelArguments Arguments() {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kStreamBytes);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kStreamBytes);
  arguments.SetInt(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET,
                   1 << GRPC_COMPRESS_NONE);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // Variables of the environment would make a proxy take calls to this machine,
  // too.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // gRPC's own retries keep what was sent.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // Finds a server that comes back at once.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // A call ends 30 s after its connection went dead, however long it waits.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  return arguments;
}

}  // namespace

absl::StatusOr<Client> Client::Connect(const std::string& target,
                                       Options options) {
  const std::shared_ptr<grpc::Channel> channel = grpc::CreateCustomChannel(
      target, grpc::InsecureChannelCredentials(), Arguments());
  const auto deadline =
      absl::ToChronoTime(absl::Now() + options.connect_timeout);
  if (!channel->WaitForConnected(deadline)) {
    return absl::UnavailableError(
        absl::StrCat("no server at ", target, " within ",
                     absl::FormatDuration(options.connect_timeout)));
  }
  return Client(channel, std::move(options));
}

Client::Client(std::shared_ptr<grpc::Channel> channel, Options options)
    : connection_(std::make_shared<const Connection>(std::move(channel),
                                                     std::move(options))) {}

Backbone Client::backbone(std::string name) const {
  return Backbone(connection_, std::move(name));
}

absl::StatusOr<v1::GetServerResponse> Client::GetServer() const {
  return connection_->Ask(connection_->instances(), &Stub::GetServer,
                          v1::GetServerRequest());
}

absl::StatusOr<v1::ListArchitecturesResponse> Client::ListArchitectures(
    const v1::ListArchitecturesRequest& request) const {
  return connection_->Ask(connection_->instances(), &Stub::ListArchitectures,
                          request);
}

absl::StatusOr<v1::ListBenchmarksResponse> Client::ListBenchmarks(
    const v1::ListBenchmarksRequest& request) const {
  return connection_->Ask(connection_->instances(), &Stub::ListBenchmarks,
                          request);
}

absl::StatusOr<v1::CreateInstanceResponse> Client::CreateInstance(
    const v1::CreateInstanceRequest& request) const {
  return connection_->Ask(connection_->instances(), &Stub::CreateInstance,
                          request);
}

absl::StatusOr<v1::CloneInstanceResponse> Client::CloneInstance(
    const v1::CloneInstanceRequest& request) const {
  return connection_->Ask(connection_->instances(), &Stub::CloneInstance,
                          request);
}

absl::StatusOr<v1::UpdateInstanceResponse> Client::UpdateInstance(
    const v1::UpdateInstanceRequest& request) const {
  return connection_->Ask(connection_->instances(), &Stub::UpdateInstance,
                          request);
}

absl::StatusOr<v1::GetInstanceResponse> Client::GetInstance(
    const v1::GetInstanceRequest& request) const {
  return connection_->Ask(connection_->instances(), &Stub::GetInstance,
                          request);
}

absl::StatusOr<v1::ListInstancesResponse> Client::ListInstances(
    const v1::ListInstancesRequest& request) const {
  return connection_->Ask(connection_->instances(), &Stub::ListInstances,
                          request);
}

absl::StatusOr<v1::DeleteInstanceResponse> Client::DeleteInstance(
    const v1::DeleteInstanceRequest& request) const {
  return connection_->Ask(connection_->instances(), &Stub::DeleteInstance,
                          request);
}

}  // namespace backboned::client
