#include "client/cpp/client.h"

#include <grpcpp/client_context.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/channel.h"

namespace backboned::client {
namespace {

using Stub = v1::InstanceService::Stub;

// The time to ask a channel that did not connect why it did not.
constexpr absl::Duration kLastWords = absl::Milliseconds(100);

// Returns why a channel does not connect, in gRPC's words; empty: it has none.
std::string LastWords(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kLastWords));
  v1::GetServerResponse response;
  const grpc::Status status =
      Stub(channel).GetServer(&context, v1::GetServerRequest(), &response);
  return status.error_code() == grpc::StatusCode::UNAVAILABLE
             ? absl::StrCat(": ", status.error_message())
             : "";
}

}  // namespace

absl::StatusOr<Client> Client::Connect(const std::string& target,
                                       Options options) {
  const absl::Status checked = CheckCredentials(options.credentials);
  if (!checked.ok()) return checked;
  const std::shared_ptr<grpc::Channel> channel =
      MakeChannel(target, options.credentials);
  const auto deadline =
      absl::ToChronoTime(absl::Now() + options.connect_timeout);
  if (!channel->WaitForConnected(deadline)) {
    return absl::UnavailableError(absl::StrCat(
        "no server at ", target, " within ",
        absl::FormatDuration(options.connect_timeout), LastWords(channel)));
  }
  return Client(
      std::make_shared<const Connection>(channel, std::move(options), target));
}

Client::Client(std::shared_ptr<const Connection> connection)
    : connection_(std::move(connection)) {}

Client::Client(std::shared_ptr<grpc::Channel> channel, Options options)
    : Client(std::make_shared<const Connection>(std::move(channel),
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

absl::StatusOr<v1::SaveCheckpointResponse> Client::SaveCheckpoint(
    const v1::SaveCheckpointRequest& request) const {
  return connection_->Ask(connection_->instances(), &Stub::SaveCheckpoint,
                          request);
}

absl::StatusOr<v1::LoadCheckpointResponse> Client::LoadCheckpoint(
    const v1::LoadCheckpointRequest& request) const {
  return connection_->Ask(connection_->instances(), &Stub::LoadCheckpoint,
                          request);
}

absl::StatusOr<v1::ListCheckpointsResponse> Client::ListCheckpoints(
    const v1::ListCheckpointsRequest& request) const {
  return connection_->Ask(connection_->instances(), &Stub::ListCheckpoints,
                          request);
}

absl::StatusOr<v1::DeleteCheckpointResponse> Client::DeleteCheckpoint(
    const v1::DeleteCheckpointRequest& request) const {
  return connection_->Ask(connection_->instances(), &Stub::DeleteCheckpoint,
                          request);
}

absl::StatusOr<v1::ListUsageResponse> Client::ListUsage(
    const v1::ListUsageRequest& request) const {
  return connection_->Ask(connection_->instances(), &Stub::ListUsage, request);
}

}  // namespace backboned::client
