// Connects to a Backboned server, without LibTorch.
//
//   absl::StatusOr<Client> client = Client::Connect("unix:/run/b.sock");
//   v1::CreateInstanceRequest request;
//   request.set_benchmark("seq-mnist");
//   auto created = client->CreateInstance(request);
//   Backbone net = client->backbone(created->instance().name());

#ifndef BACKBONED_CLIENT_CPP_CLIENT_H_
#define BACKBONED_CLIENT_CPP_CLIENT_H_

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "backboned/v1/instance_service.pb.h"
#include "client/cpp/backbone.h"
#include "client/cpp/calls.h"
#include "client/cpp/connection.h"
#include "client/cpp/options.h"

namespace backboned::client {

// A connection to a server, and the verbs that need no instance.
//
// Thread-safe; copies share the connection. Every verb has the deadline of the
// options, is repeated as they say, and returns the server's error
// (client/cpp/error.h).
class Client {
 public:
  // Connects to `unix:/path` or `host:port` by a new connection, with the
  // options' credentials.
  //
  // Returns kInvalidArgument if the credentials are none, or have a token that
  // would go through TCP without TLS; kUnavailable if no server answers within
  // the connect timeout.
  static absl::StatusOr<Client> Connect(const std::string& target,
                                        Options options = {});

  // Makes a client of an existing channel, e.g. to a server in this process.
  // Of the options' credentials the token counts; that it may go through the
  // channel is up to the caller.
  explicit Client(std::shared_ptr<grpc::Channel> channel, Options options = {});

  // The options, with the session in use.
  const Options& options() const { return connection_->options(); }

  const Connection& connection() const { return *connection_; }

  // Returns a handle of the instance `name`, or `owner/name`. Makes no call.
  Backbone backbone(std::string name) const;

  // The stream of calls, for calls that do not wait for those before them. It
  // lives as long as a copy of the client, or a handle of an instance.
  Calls& calls() const { return connection_->calls(); }

  absl::StatusOr<v1::GetServerResponse> GetServer() const;
  absl::StatusOr<v1::ListArchitecturesResponse> ListArchitectures(
      const v1::ListArchitecturesRequest& request = {}) const;
  absl::StatusOr<v1::ListBenchmarksResponse> ListBenchmarks(
      const v1::ListBenchmarksRequest& request = {}) const;
  absl::StatusOr<v1::CreateInstanceResponse> CreateInstance(
      const v1::CreateInstanceRequest& request) const;
  absl::StatusOr<v1::CloneInstanceResponse> CloneInstance(
      const v1::CloneInstanceRequest& request) const;
  absl::StatusOr<v1::UpdateInstanceResponse> UpdateInstance(
      const v1::UpdateInstanceRequest& request) const;
  absl::StatusOr<v1::GetInstanceResponse> GetInstance(
      const v1::GetInstanceRequest& request) const;
  absl::StatusOr<v1::ListInstancesResponse> ListInstances(
      const v1::ListInstancesRequest& request = {}) const;
  absl::StatusOr<v1::DeleteInstanceResponse> DeleteInstance(
      const v1::DeleteInstanceRequest& request) const;
  absl::StatusOr<v1::SaveCheckpointResponse> SaveCheckpoint(
      const v1::SaveCheckpointRequest& request) const;
  absl::StatusOr<v1::LoadCheckpointResponse> LoadCheckpoint(
      const v1::LoadCheckpointRequest& request) const;
  absl::StatusOr<v1::ListCheckpointsResponse> ListCheckpoints(
      const v1::ListCheckpointsRequest& request = {}) const;
  absl::StatusOr<v1::DeleteCheckpointResponse> DeleteCheckpoint(
      const v1::DeleteCheckpointRequest& request) const;
  absl::StatusOr<v1::ListUsageResponse> ListUsage(
      const v1::ListUsageRequest& request = {}) const;

 private:
  explicit Client(std::shared_ptr<const Connection> connection);

  std::shared_ptr<const Connection> connection_;
};

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_CLIENT_H_
