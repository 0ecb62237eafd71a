#include "server/rpc/standard/health_check.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/byte_buffer.h>

#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "grpc/health/v1/health.pb.h"
#include "proto/wire/unary.h"
#include "server/rpc/transport/listener.h"

namespace backboned::rpc {
namespace {

using Response = ::grpc::health::v1::HealthCheckResponse;

constexpr char kMethod[] = "/grpc.health.v1.Health/Check";

// Ignores the environment's proxy, which is for other machines.
std::shared_ptr<grpc::Channel> Connect(const std::string& target) {
  grpc::ChannelArguments arguments;
  arguments.SetInt("grpc.enable_http_proxy", 0);
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(),
                                   arguments);
}

// Sends an empty request, which asks about the whole server.
grpc::Status Ask(const std::string& target, absl::Duration timeout,
                 grpc::ByteBuffer& answer) {
  grpc::GenericStub stub(Connect(target));
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  const grpc::ByteBuffer request(nullptr, 0);
  grpc::Status status;
  absl::Notification done;
  stub.UnaryCall(&context, kMethod, grpc::StubOptions(), &request, &answer,
                 [&status, &done](grpc::Status ended) {
                   status = std::move(ended);
                   done.Notify();
                 });
  done.WaitForNotification();
  return status;
}

bool SaysServing(const grpc::ByteBuffer& answer) {
  Response response;
  return wire::Parse(answer, response).ok() &&
         response.status() == Response::SERVING;
}

}  // namespace

absl::StatusOr<std::string> TargetOf(const std::string& listen) {
  const absl::StatusOr<std::vector<Listener>> listeners =
      ParseListeners({listen});
  if (!listeners.ok()) return listeners.status();
  const ListenAddress* const address = &listeners->front().address;
  if (address->is_unix()) return address->text;
  if (address->port == "0") {
    return absl::InvalidArgumentError(absl::StrCat(
        "cannot check ", listen,
        ": the server chose the port itself; give its address to --check"));
  }
  if (address->host == "0.0.0.0") {
    return absl::StrCat("127.0.0.1:", address->port);
  }
  if (address->host == "::") return absl::StrCat("[::1]:", address->port);
  return address->text;
}

absl::Status CheckHealth(const std::string& target, absl::Duration timeout) {
  grpc::ByteBuffer answer;
  const grpc::Status status = Ask(target, timeout, answer);
  if (!status.ok()) {
    return absl::UnavailableError(
        absl::StrCat(target, " does not answer: ", status.error_message()));
  }
  if (!SaysServing(answer)) {
    return absl::UnavailableError(absl::StrCat(target, " does not serve"));
  }
  return absl::OkStatus();
}

}  // namespace backboned::rpc
