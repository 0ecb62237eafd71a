#include "client/cli/top_figures.h"

#include <algorithm>
#include <functional>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/instance_text.h"

namespace backboned::cli {
namespace {

absl::Duration ToDuration(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) +
         absl::Nanoseconds(duration.nanos());
}

// Counts a second, of counters that only grow.
class Rate {
 public:
  explicit Rate(absl::Duration interval)
      : seconds_(absl::ToDoubleSeconds(interval)) {}

  double operator()(int64_t before, int64_t after) const {
    if (seconds_ <= 0 || after < before) return 0;
    return static_cast<double>(after - before) / seconds_;
  }

 private:
  double seconds_;
};

DeviceFigures Compare(const v1::Device& before, const v1::Device& after,
                      absl::Duration interval) {
  const Rate rate(interval);
  const absl::Duration worked =
      ToDuration(after.busy()) - ToDuration(before.busy());
  return {
      .name = after.name(),
      .busy = interval > absl::ZeroDuration()
                  ? std::clamp(absl::FDivDuration(worked, interval), 0., 1.)
                  : 0,
      .queued = after.queued(),
      .backlog = ToDuration(after.backlog()),
      .allocated_bytes = after.allocated_bytes(),
      .total_bytes = after.total_bytes(),
      .samples = rate(before.batches().samples(), after.batches().samples()),
      .merged = rate(before.batches().merged_forwards(),
                     after.batches().merged_forwards()),
      .caller = ""};
}

InstanceFigures Compare(const v1::Instance& before, const v1::Instance& after,
                        absl::Duration interval) {
  const Rate rate(interval);
  const v1::InstanceCounters& old = before.counters();
  const v1::InstanceCounters& now = after.counters();
  return {.owner = after.owner(),
          .name = after.name(),
          .network = FormatNetwork(after),
          .device = after.device(),
          .forwards = rate(old.forwards(), now.forwards()),
          .backwards = rate(old.backwards(), now.backwards()),
          .steps = rate(old.steps(), now.steps()),
          .writes = rate(old.writes(), now.writes()),
          .memory_bytes = after.memory_bytes(),
          .tapes = after.tape_count(),
          .tape_bytes = after.tape_bytes()};
}

}  // namespace

Figures Between(const Look& before, const Look& after) {
  const bool is_same = before.server.server_uid() == after.server.server_uid();
  Figures figures;
  figures.interval = after.time - before.time;
  std::map<std::string, const v1::Device*> devices;
  std::map<std::string, const v1::Instance*> instances;
  if (is_same) {
    for (const auto& device : before.server.devices()) {
      devices[device.name()] = &device;
    }
    for (const auto& instance : before.list.instances()) {
      instances[instance.version().uid()] = &instance;
    }
  }
  std::map<std::string, PrincipalFigures> principals;
  for (const v1::Instance& instance : after.list.instances()) {
    const auto old = instances.find(instance.version().uid());
    figures.instances.push_back(
        Compare(old == instances.end() ? instance : *old->second, instance,
                figures.interval));
    const InstanceFigures& made = figures.instances.back();
    PrincipalFigures& principal = principals[instance.owner()];
    principal.name = instance.owner();
    ++principal.instances;
    principal.calls += made.calls();
    principal.memory_bytes += instance.memory_bytes();
    principal.shared_bytes += instance.shared_bytes();
    principal.tape_bytes += instance.tape_bytes();
  }
  std::ranges::stable_sort(figures.instances, std::greater<>(),
                           &InstanceFigures::calls);
  for (const v1::Device& device : after.server.devices()) {
    const auto old = devices.find(device.name());
    DeviceFigures made = Compare(old == devices.end() ? device : *old->second,
                                 device, figures.interval);
    const auto caller = std::ranges::find(figures.instances, device.name(),
                                          &InstanceFigures::device);
    if (caller != figures.instances.end() && caller->calls() > 0) {
      made.caller = absl::StrCat(caller->owner, "/", caller->name);
    }
    figures.devices.push_back(std::move(made));
  }
  for (auto& [name, principal] : principals) {
    figures.principals.push_back(std::move(principal));
  }
  return figures;
}

}  // namespace backboned::cli
