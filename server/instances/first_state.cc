#include "server/instances/first_state.h"

#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "backbones/initial_draw.h"
#include "base/errors.h"
#include "server/device/chores.h"
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

  absl::StatusOr<FirstState> operator()(const Drawn& drawn) const {
    absl::StatusOr<FirstState> first = DrawNetwork(drawn);
    return first.ok() ? MoveToDevice(*std::move(first)) : first;
  }

  absl::StatusOr<FirstState> operator()(const Loaded& loaded) const {
    absl::StatusOr<PreparedWeights> weights =
        folder.Prepare(loaded.weights, layout());
    if (!weights.ok()) return weights.status();
    absl::StatusOr<FirstState> first = DrawNetwork(loaded.rest);
    if (!first.ok()) return first;
    absl::StatusOr<DeviceWorker::Times> done =
        RunChore(chores, options.caller,
                 [&] { return weights->LoadNext(first->state); });
    if (!done.ok()) return done.status();
    first->weights_sha256 = weights->TakeSha256();
    first->loaded = weights->plan();
    return MoveToDevice(*std::move(first));
  }

  absl::StatusOr<FirstState> operator()(const Cloned& cloned) const {
    absl::StatusOr<StatePtr> state = StateOfSource(cloned);
    if (!state.ok()) return state.status();
    return FirstState{.state = *CloneOf(**state, cloned.parts)};
  }

  absl::StatusOr<FirstState> operator()(const Forked& forked) const {
    absl::StatusOr<StatePtr> state = StateOfSource(forked);
    if (!state.ok()) return state.status();
    absl::StatusOr<State> drawn = Draw(
        MakeGenerator(forked.seed), DtypeOf(**state), InitialDraw::Part::kHead);
    if (!drawn.ok()) return drawn.status();
    absl::StatusOr<FirstState> head =
        MoveToDevice({.state = *std::move(drawn)});
    if (!head.ok()) return head.status();
    absl::StatusOr<StatePtr> fork = ForkOf(**state, layout(), head->state);
    if (!fork.ok()) return fork.status();
    return FirstState{.state = **fork};
  }

  const Layout& layout() const { return plan.architecture->layout(); }

  // Draws all of the network that no earlier column has.
  absl::StatusOr<FirstState> DrawNetwork(const Drawn& drawn) const {
    absl::StatusOr<at::Generator> generator = MakeGenerator(drawn);
    if (!generator.ok()) return generator.status();
    absl::StatusOr<State> state =
        Draw(*generator, options.dtype, InitialDraw::Part::kAll);
    if (!state.ok()) return state.status();
    std::vector<Column> columns;
    for (const auto& column : options.columns) {
      columns.push_back({.layout = &column->architecture().layout(),
                         .state = column->state()});
    }
    FirstState first = {.state = *WithColumns(*state, layout(), columns)};
    if (!drawn.rng_state.empty()) first.rng_state = first.state.rng_state;
    return first;
  }

  absl::StatusOr<State> Draw(const at::Generator& generator,
                             at::ScalarType dtype,
                             InitialDraw::Part part) const {
    State state;
    InitialDraw draw(layout(), generator, dtype, part);
    absl::StatusOr<DeviceWorker::Times> drawn =
        RunChore(chores, options.caller, [&]() -> absl::StatusOr<bool> {
          if (draw.Advance(kDrawnInATurn)) return true;
          state = draw.Take();
          return false;
        });
    if (!drawn.ok()) return drawn.status();
    return state;
  }

  // Moves parameters and buffers to the worker's device.
  absl::StatusOr<FirstState> MoveToDevice(FirstState first) const {
    if (worker.device().is_cpu()) return first;
    absl::StatusOr<DeviceWorker::Times> moved = worker.Run(options.caller, [&] {
      for (auto* tensors : {&first.state.params, &first.state.buffers}) {
        for (at::Tensor& tensor : *tensors) {
          tensor = OnDevice(tensor, worker.device());
        }
      }
      return absl::OkStatus();
    });
    if (!moved.ok()) return moved.status();
    return first;
  }
};

}  // namespace

absl::StatusOr<FirstState> MakeFirstState(const CreateOptions& options,
                                          const Blueprint& plan,
                                          const WeightsFolder& folder,
                                          DeviceWorker& chores,
                                          DeviceWorker& worker) {
  return std::visit(StateMaker{options, plan, folder, chores, worker},
                    options.beginning);
}

}  // namespace backboned
