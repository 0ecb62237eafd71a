#include "server/instances/first_state.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "backbones/initial_draw.h"
#include "backbones/optimizer.h"
#include "base/errors.h"
#include "server/device/chores.h"
#include "server/device/gpu_memory.h"
#include "server/device/host_view.h"

namespace backboned {
namespace {

at::Generator MakeGenerator(std::optional<uint64_t> seed) {
  return SeededGenerator(seed.has_value() ? *seed : std::random_device()());
}

absl::StatusOr<at::Generator> MakeGenerator(const Drawn& drawn) {
  if (drawn.rng_state.empty()) return MakeGenerator(drawn.seed);
  if (drawn.seed.has_value()) {
    return InvalidOption("give either seed or rng_state, not both");
  }
  return GeneratorFromState(std::as_bytes(std::span(drawn.rng_state)));
}

// Returns the present state of a clone's or a fork's source.
template <typename Sharing>
absl::StatusOr<StatePtr> StateOfSource(const Sharing& sharing) {
  StatePtr state = sharing.source->state();
  absl::Status expected =
      sharing.source->CheckVersion(sharing.condition, *state);
  if (!expected.ok()) return expected;
  return state;
}

// Makes a state by each way to begin.
struct StateMaker {
  const CreateOptions& options;
  const Blueprint& plan;
  const WeightsFolder& folder;
  DeviceWorker& chores;
  DeviceWorker& worker;

  Task<absl::StatusOr<FirstState>> operator()(const Drawn& drawn) const {
    absl::StatusOr<FirstState> first = co_await DrawNetwork(drawn);
    if (!first.ok()) co_return first;
    co_return co_await MoveToDevice(*std::move(first));
  }

  Task<absl::StatusOr<FirstState>> operator()(const Loaded& loaded) const {
    absl::StatusOr<PreparedWeights> weights = co_await Prepare(loaded.weights);
    if (!weights.ok()) co_return weights.status();
    absl::StatusOr<FirstState> first = co_await DrawNetwork(loaded.rest);
    if (!first.ok()) co_return first;
    const std::function<absl::StatusOr<bool>()> step = [&] {
      return weights->LoadNext(first->state);
    };
    const absl::StatusOr<DeviceWorker::Times> done =
        co_await RunChore(chores, options.caller, step);
    if (!done.ok()) co_return done.status();
    first->weights_sha256 = weights->TakeSha256();
    first->loaded = weights->plan();
    co_return co_await MoveToDevice(*std::move(first));
  }

  Task<absl::StatusOr<FirstState>> operator()(const Restored& restored) const {
    FirstState first = {
        .state = MetaState(layout(), options.dtype, restored.optimizer)};
    if (!restored.asleep) {
      StateReader reader(restored.store->folder(), restored.files, layout(),
                         options.dtype, restored.optimizer);
      const std::function<absl::StatusOr<bool>()> step = [&] {
        return reader.ReadNext();
      };
      const absl::StatusOr<DeviceWorker::Times> done =
          co_await RunChore(restored.store->disk(), options.caller, step);
      if (!done.ok()) co_return done.status();
      first.state = reader.Take();
    }
    if (restored.former.has_value()) {
      first.state.params_version = restored.former->version.params;
      first.state.buffers_version = restored.former->version.buffers;
      first.state.grads_changes = restored.former->grads_changes;
    }
    if (restored.asleep) co_return first;
    co_return co_await MoveToDevice(std::move(first));
  }

  Task<absl::StatusOr<FirstState>> operator()(const Cloned& cloned) const {
    absl::StatusOr<StatePtr> state = StateOfSource(cloned);
    if (!state.ok()) co_return state.status();
    co_return FirstState{.state = *CloneOf(**state, cloned.parts)};
  }

  Task<absl::StatusOr<FirstState>> operator()(const Forked& forked) const {
    absl::StatusOr<StatePtr> state = StateOfSource(forked);
    if (!state.ok()) co_return state.status();
    absl::StatusOr<State> drawn = co_await Draw(
        MakeGenerator(forked.seed), DtypeOf(**state), InitialDraw::Part::kHead);
    if (!drawn.ok()) co_return drawn.status();
    FirstState drawn_head = {.state = *std::move(drawn)};
    absl::StatusOr<FirstState> head =
        co_await MoveToDevice(std::move(drawn_head));
    if (!head.ok()) co_return head.status();
    absl::StatusOr<StatePtr> fork = ForkOf(**state, layout(), head->state);
    if (!fork.ok()) co_return fork.status();
    co_return FirstState{.state = **fork};
  }

  const Layout& layout() const { return plan.architecture->layout(); }

  // Reads what the file says of its tensors.
  Task<absl::StatusOr<PreparedWeights>> Prepare(
      const WeightsOptions& asked) const {
    std::optional<absl::StatusOr<PreparedWeights>> weights;
    const std::function<absl::StatusOr<bool>()> step =
        [&]() -> absl::StatusOr<bool> {
      weights.emplace(folder.Prepare(asked, layout()));
      return false;
    };
    const absl::StatusOr<DeviceWorker::Times> done =
        co_await RunChore(chores, options.caller, step);
    if (!done.ok()) co_return done.status();
    co_return *std::move(weights);
  }

  // Draws all of the network that no earlier column has.
  Task<absl::StatusOr<FirstState>> DrawNetwork(const Drawn& drawn) const {
    absl::StatusOr<at::Generator> generator = MakeGenerator(drawn);
    if (!generator.ok()) co_return generator.status();
    absl::StatusOr<State> state =
        co_await Draw(*generator, options.dtype, InitialDraw::Part::kAll);
    if (!state.ok()) co_return state.status();
    std::vector<Column> columns;
    for (const auto& column : options.columns) {
      columns.push_back({.layout = &column->architecture().layout(),
                         .state = column->state()});
    }
    FirstState first = {.state = *WithColumns(*state, layout(), columns)};
    if (!drawn.rng_state.empty()) first.rng_state = first.state.rng_state;
    co_return first;
  }

  Task<absl::StatusOr<State>> Draw(at::Generator generator,
                                   at::ScalarType dtype,
                                   InitialDraw::Part part) const {
    State state;
    InitialDraw draw(layout(), generator, dtype, part);
    const std::function<absl::StatusOr<bool>()> step =
        [&]() -> absl::StatusOr<bool> {
      if (draw.Advance(kDrawnInATurn)) return true;
      state = draw.Take();
      return false;
    };
    const absl::StatusOr<DeviceWorker::Times> drawn =
        co_await RunChore(chores, options.caller, step);
    if (!drawn.ok()) co_return drawn.status();
    co_return std::move(state);
  }

  // Moves all that belongs there to the worker's device.
  Task<absl::StatusOr<FirstState>> MoveToDevice(FirstState first) const {
    if (worker.device().is_cpu()) co_return std::move(first);
    const DeviceWorker::Work move = [&] {
      MoveTo(worker.device(), first.state);
      return absl::OkStatus();
    };
    const absl::StatusOr<DeviceWorker::Times> moved =
        co_await worker.copies().Run(options.caller, move);
    if (!moved.ok()) co_return moved.status();
    co_return std::move(first);
  }
};

}  // namespace

void MoveTo(c10::Device device, State& state) {
  const auto move = [&](at::Tensor& tensor) {
    if (!tensor.defined()) return;
    tensor = OnDevice(tensor, device);
    CountOnGpu(tensor);
  };
  for (auto* tensors :
       {&state.params, &state.buffers, &state.shared, &state.grads}) {
    std::ranges::for_each(*tensors, move);
  }
  if (state.optimizer == nullptr) return;
  OptimizerState optimizer = *state.optimizer;
  for (size_t p = 0; p < optimizer.slots.size(); ++p) {
    if (optimizer.slots[p].empty()) continue;
    const std::vector<std::string_view> names =
        SlotNames(optimizer.kind, optimizer.groups[*optimizer.group_of[p]]);
    for (size_t s = 0; s < names.size(); ++s) {  // Counts stay on the host.
      if (names[s] != kStepSlot) move(optimizer.slots[p][s]);
    }
  }
  state.optimizer =
      std::make_shared<const OptimizerState>(std::move(optimizer));
}

Task<absl::StatusOr<FirstState>> MakeFirstState(const CreateOptions& options,
                                                const Blueprint& plan,
                                                const WeightsFolder& folder,
                                                DeviceWorker& chores,
                                                DeviceWorker& worker) {
  const StateMaker maker = {options, plan, folder, chores, worker};
  co_return co_await std::visit(maker, options.beginning);
}

}  // namespace backboned
