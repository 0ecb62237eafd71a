#include "client/cpp/connection.h"

#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/channel.h"

namespace backboned::client {
Connection::Connection(std::shared_ptr<grpc::Channel> channel, Options options,
                       std::string target)
    : channel_(std::move(channel)),
      options_(std::move(options)),
      instances_(v1::InstanceService::NewStub(channel_)),
      backbones_(v1::BackboneService::NewStub(channel_)) {
  if (options_.session.empty()) options_.session = RandomId();
  calls_ = std::make_unique<Calls>(channel_, options_, std::move(target));
}

std::string Connection::RandomId() {
  std::random_device random;
  std::string id;
  for (int i = 0; i < 4; ++i) {
    absl::StrAppend(&id, absl::Hex(random(), absl::kZeroPad8));
  }
  return id;
}

absl::Status Connection::Prepare(grpc::ClientContext& context,
                                 absl::Duration left) const {
  if (left != absl::InfiniteDuration()) {
    context.set_deadline(absl::ToChronoTime(absl::Now() + left));
  }
  return AddMetadata(options_, context);
}

}  // namespace backboned::client
