#include "server/instances/clone.h"

#include <random>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "backbones/initial_draw.h"
#include "backbones/registry.h"
#include "backbones/state.h"
#include "base/errors.h"
#include "base/random_id.h"
#include "server/device/chores.h"
#include "server/device/host_view.h"
#include "server/host.h"

namespace backboned {
namespace {

constexpr size_t kMaxNameStem = 55;  // A random suffix fits behind it.

// An architecture and a state of it.
struct CloneBeginning {
  std::shared_ptr<const Architecture> architecture;
  StatePtr state;
};

absl::Status CheckOptions(const CloneOptions& options) {
  if (options.num_classes.has_value() &&
      (options.parts.grads || options.parts.optimizer)) {
    return InvalidOption(
        "a clone with num_classes has a head of its own: it takes neither "
        "with_grads nor with_optimizer");
  }
  if (options.seed.has_value() && !options.num_classes.has_value()) {
    return InvalidOption("seed needs num_classes");
  }
  return absl::OkStatus();
}

// Moves the head's parameters to the device.
absl::Status MoveHead(DeviceWorker& worker, const DeviceWorker::Request& caller,
                      const Layout& layout, State& state) {
  if (worker.device().is_cpu()) return absl::OkStatus();
  return worker
      .Run(caller,
           [&] {
             for (size_t i = 0; i < state.params.size(); ++i) {
               if (!layout.parameters()[i].head) continue;
               state.params[i] = OnDevice(state.params[i], worker.device());
             }
             return absl::OkStatus();
           })
      .status();
}

absl::StatusOr<CloneBeginning> Fork(const CloneOptions& options,
                                    const State& state, DeviceWorker& chores) {
  const Architecture& present = options.source->architecture();
  Arguments arguments = present.arguments();
  arguments["num_classes"] = *options.num_classes;
  absl::StatusOr<std::shared_ptr<const Architecture>> built = BuildArchitecture(
      present.name(), arguments, options.source->identity().columns.size());
  if (!built.ok()) return built.status();
  const Layout& layout = (*built)->layout();
  const uint64_t seed =
      options.seed.has_value() ? *options.seed : std::random_device()();
  InitialDraw draw(layout, SeededGenerator(seed), DtypeOf(state),
                   InitialDraw::Part::kHead);
  absl::StatusOr<DeviceWorker::Times> drawn = RunChore(
      chores, options.caller,
      [&]() -> absl::StatusOr<bool> { return draw.Advance(kDrawnInATurn); });
  if (!drawn.ok()) return drawn.status();
  State fresh = draw.Take();
  absl::Status moved =
      MoveHead(options.source->worker(), options.caller, layout, fresh);
  if (!moved.ok()) return moved;
  absl::StatusOr<StatePtr> forked = ForkOf(state, layout, fresh);
  if (!forked.ok()) return forked.status();
  return CloneBeginning{.architecture = *std::move(built),
                        .state = *std::move(forked)};
}

absl::StatusOr<CloneBeginning> Begin(const CloneOptions& options,
                                     DeviceWorker& chores) {
  const StatePtr state = options.source->state();
  absl::Status expected =
      options.source->CheckVersion(options.condition, *state);
  if (!expected.ok()) return expected;
  if (options.num_classes.has_value()) return Fork(options, *state, chores);
  return CloneBeginning{.architecture = options.source->shared_architecture(),
                        .state = CloneOf(*state, options.parts)};
}

Instance::Identity IdentityOf(const CloneOptions& options) {
  Instance::Identity identity = options.source->identity();
  const bool unnamed = options.name.empty();
  identity.name = unnamed ? absl::StrCat(identity.name.substr(0, kMaxNameStem),
                                         "-", RandomId().substr(0, 8))
                          : options.name;
  identity.ephemeral = unnamed && !options.session.empty();
  identity.owner = options.owner;
  identity.session = options.session;
  identity.created = absl::Now();
  if (options.num_classes.has_value()) identity.benchmark.clear();
  return identity;
}

Settings SettingsOf(const CloneOptions& options) {
  if (options.settings.has_value()) return *options.settings;
  Settings settings = options.source->settings();
  settings.read_only = false;
  settings.feature_cache_bytes = 0;
  return settings;
}

}  // namespace

absl::StatusOr<std::shared_ptr<Instance>> Host::CloneInstance(
    const CloneOptions& options) {
  absl::Status status = CheckOptions(options);
  if (status.ok() && !options.name.empty()) status = CheckName(options.name);
  if (status.ok()) {  // Before any allocation.
    status = registry_.CheckRoom({options.owner, options.session});
  }
  if (!status.ok()) return status;
  const Settings settings = SettingsOf(options);
  absl::StatusOr<std::vector<bool>> trained =
      TrainedUnder(settings, options.source->architecture().layout());
  if (!trained.ok()) return trained.status();
  absl::StatusOr<CloneBeginning> begin = Begin(options, *chores_);
  if (!begin.ok()) return begin.status();
  auto clone = std::make_shared<Instance>(
      IdentityOf(options), std::move(begin->architecture),
      options.source->worker(), std::move(begin->state), settings, cache_room_);
  status = Register(clone, options.check_wanted);
  if (!status.ok()) return status;
  return clone;
}

}  // namespace backboned
