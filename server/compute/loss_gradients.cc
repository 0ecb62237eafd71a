#include "server/compute/loss_gradients.h"

#include <ATen/ops/ones_like.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "backbones/forward.h"
#include "server/compute/recording.h"
#include "server/device/graph_cache.h"

namespace backboned {
namespace {

using Tensors = std::vector<at::Tensor>;

absl::StatusOr<LossGradients> Differentiate(const Architecture& architecture,
                                            const State& state, Inputs inputs,
                                            const ForwardOptions& options,
                                            std::span<const LossTerm> terms,
                                            bool checks_classes) {
  ForwardOutput output =
      Forward(architecture, state, std::move(inputs), options);
  at::Tensor& end = output.graph->outputs[0];
  if (checks_classes) {
    absl::Status valid = CheckClasses(terms, end.size(1));
    if (!valid.ok()) return valid;
  }
  LossGradients found = {.loss = ComputeLoss(terms, end),
                         .logits = std::move(output.outputs[0]),
                         .rng_state = std::move(output.rng_state),
                         .flops = output.flops.total()};
  end = found.loss.sum;  // One backward goes through both.
  const GraphGradients graph = {.graph = output.graph.get(),
                                .output_grads = {at::ones_like(end)}};
  found.grads = Backward(std::span(&graph, 1), /*retain=*/false,
                         /*want_input_grads=*/false)
                    .grads;
  found.loss.sum = found.loss.sum.detach();
  if (MovesBuffers(architecture, options)) {
    found.buffers = std::move(output.buffers);
  }
  return found;
}

// The tensor of a term.
at::Tensor& TargetOf(LossTerm& term) {
  return std::visit(
      [](auto& loss) -> at::Tensor& {
        if constexpr (std::is_same_v<std::decay_t<decltype(loss)>,
                                     CrossEntropy>) {
          return loss.labels;
        } else {
          return loss.target;
        }
      },
      term.loss);
}

// A training step as a function of tensors, and what it depends on besides.
class RecordedStep {
 public:
  // Returns nullopt if a graph cannot hold the step: as for its forward, or for
  // a mask of classes, which comes from the host.
  static std::optional<RecordedStep> Of(const ForwardWork& work,
                                        const State& state,
                                        std::span<const LossTerm> terms) {
    const Architecture& architecture = work.instance->architecture();
    const auto classes = architecture.arguments().find("num_classes");
    const bool has_mask = std::ranges::any_of(terms, [](const LossTerm& term) {
      const auto* loss = std::get_if<CrossEntropy>(&term.loss);
      return loss != nullptr && !loss->class_mask.empty();
    });
    if (has_mask || !Recording::Allows(architecture, work.options) ||
        classes == architecture.arguments().end()) {
      return std::nullopt;
    }
    return RecordedStep(work, state, terms, std::get<int64_t>(classes->second));
  }

  int64_t classes() const { return classes_; }

  std::string Key() const {
    std::string key = forward_.Key();
    for (const LossTerm& term : terms_) {
      absl::StrAppend(&key, " term ", term.row_begin, " ", term.row_end, " ",
                      FormatBits(term.weight), " ", term.loss.index(), " ",
                      std::visit(FormatLoss(), term.loss));
    }
    return key;
  }

  // Returns the forward's arguments, and the targets.
  Tensors Arguments(const State& state, const Inputs& inputs,
                    std::span<const LossTerm> terms) const {
    Tensors arguments = forward_.Arguments(state, inputs);
    for (LossTerm term : terms) {
      arguments.push_back(
          TargetOf(term).to(inputs.x().device(), /*non_blocking=*/true));
    }
    return arguments;
  }

  // Returns logits, loss, the terms' losses, buffers that move, and gradients;
  // and the operations.
  GraphCache::Result operator()(const Tensors& arguments) const {
    State state;
    Inputs inputs;
    std::vector<LossTerm> terms = terms_;
    auto target = forward_.Read(arguments, state, inputs).begin();
    for (LossTerm& term : terms) TargetOf(term) = *target++;
    LossGradients found =
        *Differentiate(forward_.architecture(), state, std::move(inputs),
                       forward_.options(), terms, /*checks_classes=*/false);
    TORCH_CHECK(found.logits.size(1) == classes_, "there are ",
                found.logits.size(1), " classes, expected ", classes_);
    Tensors results = {found.logits, found.loss.sum};
    for (const auto* some :
         {&found.loss.losses, &found.buffers, &found.grads}) {
      results.insert(results.end(), some->begin(), some->end());
    }
    return {std::move(results), found.flops};
  }

  // Returns the results by name.
  LossGradients Read(const GraphCache::Result& result) const {
    const Tensors& results = result.tensors;
    const auto losses = results.begin() + 2;
    const auto buffers = losses + std::ssize(terms_);
    const auto grads =
        results.end() - static_cast<std::ptrdiff_t>(forward_.params());
    return {.loss = {.losses = {losses, buffers}, .sum = results[1]},
            .logits = results[0],
            .buffers = {buffers, grads},
            .grads = {grads, results.end()},
            .flops = result.number};
  }

 private:
  struct FormatLoss {
    std::string operator()(const CrossEntropy& loss) const {
      return FormatBits(loss.label_smoothing);
    }
    std::string operator()(const MeanSquaredError&) const { return ""; }
    std::string operator()(const KlDivergence& loss) const {
      return FormatBits(loss.temperature);
    }
  };

  RecordedStep(const ForwardWork& work, const State& state,
               std::span<const LossTerm> terms, int64_t classes)
      : forward_(*work.instance, state, work.options, work.inputs),
        terms_(terms.begin(), terms.end()),
        classes_(classes) {
    for (LossTerm& term : terms_) TargetOf(term).reset();
  }

  Recording forward_;
  std::vector<LossTerm> terms_;  // Without tensors.
  int64_t classes_;
};

}  // namespace

absl::StatusOr<LossGradients> ComputeLossGradients(
    const ForwardWork& work, const State& state,
    std::span<const LossTerm> terms) {
  const Instance& instance = *work.instance;
  Inputs inputs = PrepareInputs(instance, state, work.inputs);
  GraphCache* const graphs = instance.worker().graphs();
  const std::optional<RecordedStep> step =
      graphs == nullptr ? std::nullopt : RecordedStep::Of(work, state, terms);
  if (!step.has_value()) {
    return Differentiate(instance.architecture(), state, std::move(inputs),
                         work.options, terms, /*checks_classes=*/true);
  }
  absl::Status valid = CheckClasses(terms, step->classes());
  if (!valid.ok()) return valid;
  return step->Read(
      graphs->Run(step->Key(), step->Arguments(state, inputs, terms), *step));
}

}  // namespace backboned
