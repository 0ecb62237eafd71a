#include "client/cpp/channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace backboned::client {
namespace {

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

constexpr char kSessionKey[] = "backboned-session";
constexpr char kLabelKey[] = "backboned-label";
constexpr char kTokenKey[] = "authorization";

}  // namespace

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& target,
                                           const Credentials& credentials) {
  return grpc::CreateCustomChannel(
      target,
      UsesTls(target, credentials)
          ? grpc::SslCredentials({.pem_root_certs = credentials.ca,
                                  .pem_private_key = credentials.key,
                                  .pem_cert_chain = credentials.certificate})
          : grpc::InsecureChannelCredentials(),
      Arguments());
}

absl::Status AddMetadata(const Options& options, grpc::ClientContext& context) {
  context.AddMetadata(kSessionKey, options.session);
  if (!options.label.empty()) context.AddMetadata(kLabelKey, options.label);
  if (options.credentials.token == nullptr) return absl::OkStatus();
  const absl::StatusOr<std::string> token = options.credentials.token();
  const absl::Status checked = token.ok() ? CheckToken(*token) : token.status();
  if (!checked.ok()) {
    return absl::UnauthenticatedError(
        absl::StrCat("there is no token: ", checked.message()));
  }
  // Not by credentials of a call: those cost as much as a call itself.
  context.AddMetadata(kTokenKey, absl::StrCat("Bearer ", *token));
  return absl::OkStatus();
}

}  // namespace backboned::client
