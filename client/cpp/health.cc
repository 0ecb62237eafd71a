#include "client/cpp/health.h"

#include <grpcpp/client_context.h>

#include <memory>

#include "client/cpp/error.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace backboned::client {
namespace {

namespace health = ::grpc::health::v1;

using HealthStub = health::Health::Stub;

health::HealthCheckRequest About(const std::string& instance) {
  health::HealthCheckRequest request;
  request.set_service(instance);
  return request;
}

}  // namespace

absl::StatusOr<Health> CheckHealth(const Client& client,
                                   const std::string& instance) {
  HealthStub stub(client.connection().channel());
  return client.connection().Ask(stub, &HealthStub::Check, About(instance));
}

absl::Status WatchHealth(const Client& client, const std::string& instance,
                         const std::function<void(const Health&)>& changed) {
  HealthStub stub(client.connection().channel());
  grpc::ClientContext context;
  absl::Status prepared =
      client.connection().Prepare(context, absl::InfiniteDuration());
  if (!prepared.ok()) return prepared;
  const auto reader = stub.Watch(&context, About(instance));
  Health now;
  while (reader->Read(&now)) changed(now);
  return ToStatus(reader->Finish());
}

}  // namespace backboned::client
