#include "server/compute/recording.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>

#include "absl/strings/str_join.h"
#include "server/device/graph_cache.h"

namespace backboned {
namespace {

template <typename T>
std::string FormatOptional(const std::optional<T>& value) {
  return value.has_value() ? FormatBits(static_cast<double>(*value)) : "-";
}

}  // namespace

bool Recording::Allows(const Architecture& architecture,
                       const ForwardOptions& options) {
  return !Draws(architecture, options) &&
         std::ranges::none_of(options.batch_norm, &BatchNormMode::cumulative);
}

Recording::Recording(const Instance& instance, const State& state,
                     const ForwardOptions& options, const Inputs& inputs)
    : architecture_(instance.shared_architecture()),
      precision_(instance.identity().precision),
      options_(options),
      inputs_(inputs.Map([](const at::Tensor&) { return at::Tensor(); })),
      params_(state.params.size()),
      shared_(state.shared.size()),
      buffers_(state.buffers.size()) {}

std::string Recording::Key() const {
  std::string key =
      absl::StrCat(architecture_->name(), " ", static_cast<int>(precision_));
  for (const auto& [name, value] : architecture_->arguments()) {
    const double* const number = std::get_if<double>(&value);
    absl::StrAppend(
        &key, " ", name, "=",
        number == nullptr ? FormatArgument(value) : FormatBits(*number));
  }
  absl::StrAppend(&key, " ", absl::StrJoin(options_.outputs, ","),
                  options_.training ? " training" : "",
                  options_.prerelu ? " prerelu" : "",
                  options_.autocast ? " autocast" : "",
                  options_.record ? " gradients " : "");
  for (const bool wanted : options_.grad_mask) {
    key.push_back(wanted ? '1' : '0');
  }
  for (const BatchNormMode& mode : options_.batch_norm) {
    absl::StrAppend(&key, " layer ", FormatOptional(mode.training), " ",
                    FormatOptional(mode.track_running_stats), " ",
                    FormatOptional(mode.eps), " ",
                    FormatOptional(mode.momentum));
  }
  return key;
}

std::vector<at::Tensor> Recording::Arguments(const State& state,
                                             const Inputs& inputs) const {
  std::vector<at::Tensor> arguments;
  for (const auto* some : {&state.params, &state.shared, &state.buffers}) {
    arguments.insert(arguments.end(), some->begin(), some->end());
  }
  for (const Input& input : inputs.all) arguments.push_back(input.tensor);
  return arguments;
}

std::span<const at::Tensor> Recording::Read(
    std::span<const at::Tensor> arguments, State& state, Inputs& inputs) const {
  const auto take = [&arguments](size_t count) {
    const auto taken = arguments.first(count);
    arguments = arguments.subspan(count);
    return std::vector<at::Tensor>(taken.begin(), taken.end());
  };
  state.params = take(params_);
  state.shared = take(shared_);
  state.buffers = take(buffers_);
  inputs = inputs_;
  for (Input& input : inputs.all) input.tensor = take(1)[0];
  return arguments;
}

ForwardOutput Evaluate(const Instance& instance, const State& state,
                       Inputs inputs, const ForwardOptions& options) {
  GraphCache* const graphs = instance.worker().graphs();
  if (graphs == nullptr || options.training || options.record ||
      !Recording::Allows(instance.architecture(), options)) {
    return Forward(instance.architecture(), state, std::move(inputs), options);
  }
  const Recording recording(instance, state, options, inputs);
  const GraphCache::Function run = [recording](
                                       const GraphCache::Tensors& arguments) {
    State read;
    Inputs given;
    recording.Read(arguments, read, given);
    ForwardOutput output = Forward(recording.architecture(), read,
                                   std::move(given), recording.options());
    return GraphCache::Result(std::move(output.outputs), output.flops.forward);
  };
  GraphCache::Result result =
      graphs->Run(recording.Key(), recording.Arguments(state, inputs), run);
  return {.outputs = std::move(result.tensors),
          .buffers = state.buffers,
          .flops = {.forward = result.number}};
}

}  // namespace backboned
