#include "backbones/together.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "absl/hash/hash.h"
#include "backbones/autocast.h"
#include "backbones/pass.h"

namespace backboned {
namespace {

// Returns the tensors that the trunk reads, in a fixed order.
std::vector<at::TensorImpl*> TrunkTensors(const ForwardPart& part) {
  std::vector<at::TensorImpl*> tensors;
  const std::vector<Parameter>& parameters =
      part.architecture->layout().parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i].head) continue;
    tensors.push_back(part.state->params[i].unsafeGetTensorImpl());
  }
  for (const auto* rest : {&part.state->buffers, &part.state->shared}) {
    for (const at::Tensor& tensor : *rest) {
      tensors.push_back(tensor.unsafeGetTensorImpl());
    }
  }
  return tensors;
}

std::vector<int64_t> SampleShape(const ForwardPart& part) {
  return part.inputs.x().sizes().slice(1).vec();
}

bool WantsOut(const ForwardPart& part) {
  return std::ranges::find(part.options->outputs, "out") !=
         part.options->outputs.end();
}

Pass PassOf(const ForwardPart& part) {
  std::vector<at::Tensor> params = part.state->params;
  params.insert(params.end(), part.state->shared.begin(),
                part.state->shared.end());
  return Pass(std::move(params), part.state->buffers,
              {.training = false, .prerelu = part.options->prerelu});
}

// Returns the first row of each part in the batch, and then the batch's size.
std::vector<int64_t> RowsOf(std::span<const ForwardPart> parts) {
  std::vector<int64_t> begins = {0};
  for (const ForwardPart& part : parts) {
    begins.push_back(begins.back() + part.inputs.rows());
  }
  return begins;
}

// Returns the operations of some of the rows of a pass; all take the same.
int64_t PartOf(const Pass& pass, int64_t rows, int64_t all_rows) {
  return all_rows == 0 ? 0 : pass.flops().forward / all_rows * rows;
}

// The logits of a part, undefined if they are not wanted, and their operations.
struct HeadOutput {
  at::Tensor logits;
  int64_t flops = 0;
};

// Runs each distinct head over the features of the parts that want its logits.
// Returns the results by part.
std::vector<HeadOutput> RunHeads(std::span<const ForwardPart> parts,
                                 const std::vector<int64_t>& begins,
                                 const at::Tensor& features) {
  std::map<const State*, std::vector<size_t>> by_state;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (WantsOut(parts[i])) by_state[parts[i].state].push_back(i);
  }
  std::vector<HeadOutput> outputs(parts.size());
  for (const auto& [state, members] : by_state) {
    std::vector<at::Tensor> rows;
    for (const size_t i : members) {
      rows.push_back(features.narrow(0, begins[i], begins[i + 1] - begins[i]));
    }
    const bool all = members.size() == parts.size();
    const ForwardPart& first = parts[members[0]];
    Pass pass = PassOf(first);
    const at::Tensor out =
        first.architecture->Head(pass, all ? features : at::cat(rows));
    int64_t begin = 0;
    for (const size_t i : members) {
      const int64_t count = begins[i + 1] - begins[i];
      outputs[i] = {.logits = out.narrow(0, begin, count),
                    .flops = PartOf(pass, count, out.size(0))};
      begin += count;
    }
  }
  return outputs;
}

}  // namespace

uint64_t TogetherKey(const ForwardPart& part) {
  return absl::HashOf(TrunkTensors(part), SampleShape(part),
                      part.options->prerelu, part.options->autocast);
}

bool CanRunTogether(const ForwardPart& a, const ForwardPart& b) {
  return a.options->prerelu == b.options->prerelu &&
         a.options->autocast == b.options->autocast &&
         a.inputs.x().scalar_type() == b.inputs.x().scalar_type() &&
         SampleShape(a) == SampleShape(b) && TrunkTensors(a) == TrunkTensors(b);
}

std::vector<ForwardOutput> ForwardTogether(std::span<const ForwardPart> parts) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> xs;
  for (const ForwardPart& part : parts) xs.push_back(part.inputs.x());
  const ForwardPart& first = parts[0];
  Pass pass = PassOf(first);
  const at::Tensor& x = first.inputs.x();
  const ScopedAutocast scope(first.options->autocast, x.device().type());
  const TrunkOutputs trunk = first.architecture->Trunk(pass, at::cat(xs));
  const std::vector<int64_t> begins = RowsOf(parts);
  const std::vector<HeadOutput> heads = RunHeads(parts, begins, trunk.features);

  std::vector<ForwardOutput> results(parts.size());
  for (size_t i = 0; i < parts.size(); ++i) {
    // By Architecture::output_names().
    std::vector<at::Tensor> all = {heads[i].logits};
    const auto add = [&](const at::Tensor& rows) {
      all.push_back(rows.narrow(0, begins[i], begins[i + 1] - begins[i]));
    };
    add(trunk.features);
    std::ranges::for_each(trunk.layers, add);
    const std::vector<std::string>& names =
        parts[i].architecture->output_names();
    for (const std::string& name : parts[i].options->outputs) {
      const auto found = std::ranges::find(names, name);
      TORCH_CHECK(found != names.end(), "no output ", name);
      const at::Tensor& output =
          all.at(static_cast<size_t>(found - names.begin()));
      results[i].outputs.push_back(
          scope.Result(output, x.scalar_type()).contiguous());
    }
    results[i].buffers = parts[i].state->buffers;
    results[i].flops.forward =
        heads[i].flops + PartOf(pass, begins[i + 1] - begins[i], begins.back());
  }
  return results;
}

}  // namespace backboned
