#include "client/cpp/connection.h"

#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace backboned::client {
namespace {

constexpr char kSessionKey[] = "backboned-session";
constexpr char kLabelKey[] = "backboned-label";

}  // namespace

Connection::Connection(std::shared_ptr<grpc::Channel> channel, Options options)
    : channel_(std::move(channel)),
      options_(std::move(options)),
      instances_(v1::InstanceService::NewStub(channel_)),
      backbones_(v1::BackboneService::NewStub(channel_)),
      calls_(std::make_unique<Calls>(*this)) {
  if (options_.session.empty()) options_.session = RandomId();
}

std::string Connection::RandomId() {
  std::random_device random;
  std::string id;
  for (int i = 0; i < 4; ++i) {
    absl::StrAppend(&id, absl::Hex(random(), absl::kZeroPad8));
  }
  return id;
}

void Connection::Prepare(grpc::ClientContext& context,
                         absl::Duration left) const {
  context.AddMetadata(kSessionKey, options_.session);
  if (!options_.label.empty()) context.AddMetadata(kLabelKey, options_.label);
  if (left != absl::InfiniteDuration()) {
    context.set_deadline(absl::ToChronoTime(absl::Now() + left));
  }
}

}  // namespace backboned::client
