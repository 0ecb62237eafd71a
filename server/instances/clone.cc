#include "server/instances/clone.h"

#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "backbones/initial_draw.h"
#include "backbones/registry.h"
#include "backbones/state.h"
#include "base/errors.h"
#include "base/names.h"
#include "base/random_id.h"
#include "server/instances/blueprint.h"

namespace backboned {
namespace {

constexpr size_t kMaxNameStem = 55;  // A random suffix fits behind it.

// An architecture and a state of it.
struct CloneBeginning {
  std::shared_ptr<const Architecture> architecture;
  StatePtr state;
};

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
  absl::StatusOr<State> fresh =
      Draw(layout, SeededGenerator(seed), DtypeOf(state),
           InitialDraw::Part::kHead, options.caller, chores);
  if (!fresh.ok()) return fresh.status();
  absl::Status moved = MoveTo(options.source->worker(), options.caller, *fresh);
  if (!moved.ok()) return moved;
  absl::StatusOr<StatePtr> forked = ForkOf(state, layout, *fresh);
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

absl::Status CheckClone(const CloneOptions& options) {
  if (options.num_classes.has_value() &&
      (options.parts.grads || options.parts.optimizer)) {
    return InvalidOption(
        "num_classes cannot be combined with with_grads or with_optimizer: a "
        "fork has a new head");
  }
  if (options.seed.has_value() && !options.num_classes.has_value()) {
    return InvalidOption("seed needs num_classes");
  }
  return options.name.empty() ? absl::OkStatus() : CheckName(options.name);
}

absl::StatusOr<std::shared_ptr<Instance>> MakeClone(
    const CloneOptions& options, DeviceWorker& chores,
    std::shared_ptr<Budget> cache_room) {
  const Settings settings = SettingsOf(options);
  absl::StatusOr<std::vector<bool>> trained =
      TrainedUnder(settings, options.source->architecture().layout());
  if (!trained.ok()) return trained.status();
  absl::StatusOr<CloneBeginning> begin = Begin(options, chores);
  if (!begin.ok()) return begin.status();
  return std::make_shared<Instance>(
      IdentityOf(options), std::move(begin->architecture),
      options.source->worker(), std::move(begin->state), settings,
      std::move(cache_room));
}

}  // namespace backboned
