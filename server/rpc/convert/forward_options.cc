#include "server/rpc/convert/forward_options.h"

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "proto/wire/spec.h"
#include "server/rpc/convert/batch_norm_header.h"
#include "server/rpc/convert/tensor_convert.h"

namespace backboned::rpc {
namespace {

// Returns the names of the outputs of a header.
absl::StatusOr<std::vector<std::string>> OutputsOf(
    const v1::ForwardHeader& header, const Architecture& architecture) {
  std::vector<std::string> outputs(header.outputs().begin(),
                                   header.outputs().end());
  if (!outputs.empty() && header.return_type() != v1::RETURN_TYPE_UNSPECIFIED) {
    return InvalidOption("give either outputs or return_type, not both");
  }
  if (!outputs.empty()) return outputs;
  switch (header.return_type()) {
    case v1::RETURN_TYPE_UNSPECIFIED:
    case v1::RETURN_TYPE_OUT:
      return std::vector<std::string>{"out"};
    case v1::RETURN_TYPE_FEATURES:
      return std::vector<std::string>{"features"};
    case v1::RETURN_TYPE_BOTH:
      return std::vector<std::string>{"out", "features"};
    case v1::RETURN_TYPE_FULL:
      outputs.push_back("out");
      for (const std::string& name : architecture.output_names()) {
        if (name.starts_with("layers.")) outputs.push_back(name);
      }
      return outputs;
    default:
      return InvalidOption(absl::StrCat("return_type ",
                                        static_cast<int>(header.return_type()),
                                        " is unknown"));
  }
}

// Returns which parameters get gradients; empty if the header does not say.
absl::StatusOr<std::vector<bool>> GradMask(const v1::ForwardHeader& header,
                                           const Layout& layout) {
  const size_t count = layout.parameters().size();
  if (header.no_param_grads()) return std::vector<bool>(count, false);
  if (header.grad_params().globs().empty() &&
      !header.grad_params().has_range()) {
    return std::vector<bool>();
  }
  absl::StatusOr<std::vector<Slice>> slices =
      SelectWholeParameters(FromProto(header.grad_params()), layout);
  if (!slices.ok()) return slices.status();
  std::vector<bool> mask(count, false);
  for (const Slice& slice : *slices) mask[slice.index] = true;
  return mask;
}

// Checks a client's generator state, if there is one.
absl::Status CheckRngState(std::string_view bytes) {
  if (bytes.empty()) return absl::OkStatus();
  return GeneratorFromState(std::as_bytes(std::span(bytes))).status();
}

// Returns kInvalidArgument unless images of this shape have as many channels as
// their normalisation.
absl::Status CheckChannels(std::span<const int64_t> shape,
                           const Normalization& normalization) {
  const auto channels = static_cast<int64_t>(normalization.mean.size());
  if (channels == 0 || (shape.size() > 1 && shape[1] == channels)) {
    return absl::OkStatus();
  }
  return Error(
      absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
      absl::StrCat("images have shape ", FormatShape(shape), ", expected [N, ",
                   channels, ", ...] to be normalized"));
}

}  // namespace

absl::StatusOr<ForwardOptions> OptionsOf(const v1::ForwardHeader& header,
                                         const Instance& instance) {
  const Architecture& architecture = instance.architecture();
  if (header.input_grad() && !header.tape()) {
    return InvalidOption("input_grad needs tape");
  }
  absl::StatusOr<std::vector<std::string>> outputs =
      OutputsOf(header, architecture);
  if (!outputs.ok()) return outputs.status();
  absl::Status known = architecture.CheckOutputs(*outputs);
  if (!known.ok()) return known;
  if (header.prerelu() && !architecture.has_prerelu()) {
    return InvalidOption(
        absl::StrCat(architecture.name(), " does not support prerelu"));
  }
  absl::Status state = CheckRngState(header.rng_state());
  if (!state.ok()) return state;
  absl::StatusOr<std::vector<BatchNormMode>> batch_norm =
      BatchNormOf(header.batch_norm(), architecture.layout());
  if (!batch_norm.ok()) return batch_norm.status();
  absl::StatusOr<std::vector<bool>> mask =
      GradMask(header, architecture.layout());
  if (!mask.ok()) return mask.status();
  return ForwardOptions{
      .outputs = *std::move(outputs),
      .training = header.training(),
      .prerelu = header.prerelu(),
      .rng_state = header.rng_state(),
      .batch_norm = *std::move(batch_norm),
      .autocast = instance.identity().precision == Precision::kBfloat16,
      .record = header.tape(),
      .grad_mask = *std::move(mask)};
}

absl::StatusOr<int64_t> CheckInputs(const v1::ForwardHeader& header,
                                    const Instance& instance, bool training) {
  if (header.inputs_size() != 1) {
    return InvalidOption(absl::StrCat(
        "a forward takes 1 input, the header has ", header.inputs_size()));
  }
  const v1::TensorSpec& spec = header.inputs(0);
  const bool images = spec.dtype() == v1::DATA_TYPE_UINT8;
  if (!images && !FloatFromProto(spec.dtype(), "the input").ok()) {
    return Error(
        absl::StatusCode::kInvalidArgument, Reason::kDtypeMismatch,
        absl::StrCat(
            "the input is ", std::string(wire::DataTypeName(spec.dtype())),
            ", expected uint8, float32, float64, float16 or bfloat16"));
  }
  absl::StatusOr<int64_t> bytes = wire::ByteSize(spec);
  if (!bytes.ok()) {
    return Error(absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
                 std::string(bytes.status().message()));
  }
  const std::vector<int64_t> shape(spec.shape().begin(), spec.shape().end());
  absl::Status fits = instance.architecture().CheckInput(shape, training);
  if (fits.ok() && images) {
    fits = CheckChannels(shape, instance.identity().normalization);
  }
  if (!fits.ok()) return fits;
  return bytes;
}

absl::StatusOr<int64_t> CheckBuffers(const v1::ForwardHeader& header,
                                     const Layout& layout, const State& state) {
  if (header.buffers().empty()) return 0;
  const std::vector<Slice> all = SelectBuffers({}, layout).value();
  absl::StatusOr<std::optional<c10::ScalarType>> dtype =
      CheckBufferSpecs(header.buffers(), all, layout, state);
  if (!dtype.ok()) return dtype.status();
  int64_t bytes = 0;
  for (const Buffer& buffer : layout.buffers()) {
    const c10::ScalarType sent = c10::isFloatingType(buffer.dtype)
                                     ? dtype->value_or(buffer.dtype)
                                     : buffer.dtype;
    bytes += buffer.elements * static_cast<int64_t>(c10::elementSize(sent));
  }
  return bytes;
}

}  // namespace backboned::rpc
