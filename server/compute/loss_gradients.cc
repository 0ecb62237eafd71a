#include "server/compute/loss_gradients.h"

#include <ATen/ops/ones_like.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "backbones/forward.h"
#include "server/device/graph_cache.h"
#include "server/device/host_view.h"

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
                         .rng_state = std::move(output.rng_state)};
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
  // Returns nullopt if the step cannot be recorded: it draws random numbers or
  // has masks, which come from the host, or reads a count back.
  static std::optional<RecordedStep> Of(const ForwardWork& work,
                                        std::span<const LossTerm> terms) {
    const Architecture& architecture = work.instance->architecture();
    const auto classes = architecture.arguments().find("num_classes");
    const bool has_cumulative = std::ranges::any_of(work.options.batch_norm,
                                                    &BatchNormMode::cumulative);
    const bool has_mask = std::ranges::any_of(terms, [](const LossTerm& term) {
      const auto* loss = std::get_if<CrossEntropy>(&term.loss);
      return loss != nullptr && !loss->class_mask.empty();
    });
    if (has_cumulative || has_mask || Draws(architecture, work.options) ||
        classes == architecture.arguments().end()) {
      return std::nullopt;
    }
    return RecordedStep(work, terms, std::get<int64_t>(classes->second));
  }

  int64_t classes() const { return classes_; }

  // Returns all but the tensors' shapes that the function depends on.
  std::string Key(Precision precision) const {
    std::string key =
        absl::StrCat(architecture_->name(), " ", static_cast<int>(precision));
    for (const auto& [name, value] : architecture_->arguments()) {
      absl::StrAppend(&key, " ", name, "=", FormatArgument(value));
    }
    absl::StrAppend(&key, options_.autocast ? " autocast" : "",
                    options_.prerelu ? " prerelu" : "", " trained ");
    for (const bool trained : options_.grad_mask) {
      key.push_back(trained ? '1' : '0');
    }
    for (const BatchNormMode& mode : options_.batch_norm) {
      absl::StrAppend(&key, " layer ", Format(mode.training), " ",
                      Format(mode.track_running_stats), " ", Format(mode.eps),
                      " ", Format(mode.momentum));
    }
    for (const LossTerm& term : terms_) {
      absl::StrAppend(&key, " term ", term.row_begin, " ", term.row_end, " ",
                      Format(term.weight), " ", term.loss.index(), " ",
                      std::visit(FormatLoss(), term.loss));
    }
    return key;
  }

  // Returns the function's arguments: parameters, shared tensors, buffers,
  // inputs and targets.
  Tensors Arguments(const State& state, const Inputs& inputs,
                    std::span<const LossTerm> terms) const {
    Tensors arguments;
    for (const auto* some : {&state.params, &state.shared, &state.buffers}) {
      arguments.insert(arguments.end(), some->begin(), some->end());
    }
    for (const Input& input : inputs.all) arguments.push_back(input.tensor);
    for (LossTerm term : terms) {
      arguments.push_back(
          TargetOf(term).to(inputs.x().device(), /*non_blocking=*/true));
    }
    return arguments;
  }

  // Returns logits, loss, the terms' losses, buffers that move, and gradients.
  Tensors operator()(const Tensors& arguments) const {
    State state;
    Inputs inputs = inputs_;
    std::vector<LossTerm> terms = terms_;
    auto next = arguments.begin();
    const auto take = [&next](size_t count, Tensors& to) {
      to.assign(next, next + static_cast<std::ptrdiff_t>(count));
      next += static_cast<std::ptrdiff_t>(count);
    };
    take(params_, state.params);
    take(shared_, state.shared);
    take(buffers_, state.buffers);
    for (Input& input : inputs.all) input.tensor = *next++;
    for (LossTerm& term : terms) TargetOf(term) = *next++;
    LossGradients found =
        *Differentiate(*architecture_, state, inputs, options_, terms,
                       /*checks_classes=*/false);
    TORCH_CHECK(found.logits.size(1) == classes_, "there are ",
                found.logits.size(1), " classes, expected ", classes_);
    Tensors results = {found.logits, found.loss.sum};
    for (const auto* some :
         {&found.loss.losses, &found.buffers, &found.grads}) {
      results.insert(results.end(), some->begin(), some->end());
    }
    return results;
  }

  // Returns the results by name.
  LossGradients Read(const Tensors& results) const {
    const auto terms = static_cast<std::ptrdiff_t>(terms_.size());
    const auto grads = static_cast<std::ptrdiff_t>(params_);
    return {
        .loss = {.losses = {results.begin() + 2, results.begin() + 2 + terms},
                 .sum = results[1]},
        .logits = results[0],
        .buffers = {results.begin() + 2 + terms, results.end() - grads},
        .grads = {results.end() - grads, results.end()}};
  }

 private:
  struct FormatLoss {
    std::string operator()(const CrossEntropy& loss) const {
      return Format(loss.label_smoothing);
    }
    std::string operator()(const MeanSquaredError&) const { return ""; }
    std::string operator()(const KlDivergence& loss) const {
      return Format(loss.temperature);
    }
  };

  RecordedStep(const ForwardWork& work, std::span<const LossTerm> terms,
               int64_t classes)
      : architecture_(work.instance->shared_architecture()),
        options_(work.options),
        inputs_(work.inputs),
        terms_(terms.begin(), terms.end()),
        classes_(classes),
        params_(architecture_->layout().parameters().size()),
        shared_(work.instance->state()->shared.size()),
        buffers_(architecture_->layout().buffers().size()) {
    for (Input& input : inputs_.all) input.tensor.reset();
    for (LossTerm& term : terms_) TargetOf(term).reset();
  }

  // All digits.
  static std::string Format(double value) {
    return absl::StrCat(absl::Hex(std::bit_cast<uint64_t>(value)));
  }
  template <typename T>
  static std::string Format(const std::optional<T>& value) {
    return value.has_value() ? Format(static_cast<double>(*value)) : "-";
  }

  std::shared_ptr<const Architecture> architecture_;
  ForwardOptions options_;
  Inputs inputs_;                // Without tensors,
  std::vector<LossTerm> terms_;  // and so these.
  int64_t classes_;
  size_t params_;  // Counts.
  size_t shared_;
  size_t buffers_;
};

}  // namespace

absl::StatusOr<LossGradients> ComputeLossGradients(
    const ForwardWork& work, const State& state,
    std::span<const LossTerm> terms) {
  const Instance& instance = *work.instance;
  Inputs inputs = PrepareInputs(instance, state, work.inputs);
  GraphCache* const graphs = instance.worker().graphs();
  const std::optional<RecordedStep> step =
      graphs == nullptr ? std::nullopt : RecordedStep::Of(work, terms);
  if (!step.has_value()) {
    return Differentiate(instance.architecture(), state, std::move(inputs),
                         work.options, terms, /*checks_classes=*/true);
  }
  absl::Status valid = CheckClasses(terms, step->classes());
  if (!valid.ok()) return valid;
  return step->Read(graphs->Run(step->Key(instance.identity().precision),
                                step->Arguments(state, inputs, terms), *step));
}

}  // namespace backboned
