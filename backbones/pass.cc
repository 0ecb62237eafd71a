#include "backbones/pass.h"

#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/rand.h>
#include <c10/util/Exception.h>

#include <utility>

namespace backboned {
namespace {

// Returns whether `buffer` is a BatchNorm layer's num_batches_tracked.
bool IsCount(const at::Tensor& buffer) {
  return buffer.scalar_type() == at::kLong;
}

}  // namespace

Pass::Pass(std::vector<at::Tensor> parameters, std::vector<at::Tensor> buffers,
           const PassFlags& flags, at::Generator generator)
    : parameters_(std::move(parameters)),
      buffers_(std::move(buffers)),
      flags_(flags),
      generator_(std::move(generator)) {}

at::Tensor Pass::BatchNorm(const at::Tensor& x, const BatchNormTensors& tensors,
                           double eps, double momentum) {
  static constexpr BatchNormMode kAsThePass;
  const BatchNormMode& mode =
      flags_.batch_norm.empty() ? kAsThePass : flags_.batch_norm[tensors.layer];
  const bool training = mode.Trains(flags_.training);
  const bool moves = mode.Moves(flags_.training);
  double factor = mode.momentum.value_or(momentum);
  if (training) {
    TORCH_CHECK(x.numel() != x.size(1),
                "BatchNorm needs more than one value per channel in "
                "training, got an input of shape ",
                x.sizes());
  }
  if (moves) {
    // LibTorch writes the statistics in place without bumping their version
    // counter, so autograd would not notice that an earlier forward's are gone.
    for (const size_t index : {tensors.running_mean, tensors.running_var,
                               tensors.num_batches_tracked}) {
      buffers_[index] = NextBuffer(index);
    }
    if (mode.cumulative) {
      factor = 1.0 / static_cast<double>(
                         buffers_[tensors.num_batches_tracked].item<int64_t>());
    }
  }
  const bool uses_buffers = moves || !training;
  return at::batch_norm(
      x, parameters_[tensors.weight], parameters_[tensors.bias],
      uses_buffers ? buffers_[tensors.running_mean] : at::Tensor(),
      uses_buffers ? buffers_[tensors.running_var] : at::Tensor(), training,
      factor, mode.eps.value_or(eps), /*cudnn_enabled=*/true);
}

at::Tensor Pass::NextBuffer(size_t index) {
  const at::Tensor& buffer = buffers_[index];
  if (buffer.is_cuda() && next_buffers_.empty()) MakeNextBuffers();
  if (!next_buffers_.empty() && next_buffers_[index].defined()) {
    return std::exchange(next_buffers_[index], at::Tensor());
  }
  return IsCount(buffer) ? buffer.add(1) : buffer.clone();
}

void Pass::MakeNextBuffers() {
  std::vector<at::Tensor> counts;
  std::vector<at::Tensor> statistics;
  for (const at::Tensor& buffer : buffers_) {
    (IsCount(buffer) ? counts : statistics).push_back(buffer);
  }
  counts = at::_foreach_add(counts, 1);
  statistics = at::_foreach_mul(statistics, 1);
  auto next_count = counts.begin();
  auto next_statistic = statistics.begin();
  for (const at::Tensor& buffer : buffers_) {
    next_buffers_.push_back(IsCount(buffer) ? *next_count++
                                            : *next_statistic++);
  }
}

at::Tensor Pass::Dropout(const at::Tensor& x, double p) {
  if (!flags_.training || p == 0) return x;
  if (p == 1) return x.mul(0);
  at::Tensor mask = at::empty_like(x, at::TensorOptions().device(at::kCPU));
  mask.bernoulli_(1 - p, generator_);
  mask.div_(1 - p);
  return x.mul(mask.to(x.device()));
}

at::Tensor Pass::DropPath(const at::Tensor& x, double p) {
  if (!flags_.training || p == 0) return x;
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[0] = x.size(0);
  at::Tensor mask = at::empty(shape, x.scalar_type());
  mask.bernoulli_(1 - p, generator_);
  if (p < 1) mask.div_(1 - p);
  return x.mul(mask.to(x.device()));
}

void Pass::CountProduct(const at::Tensor& a, const at::Tensor& b,
                        int64_t multiplications) {
  const int64_t flops = 2 * multiplications;
  flops_.forward += flops;
  if (a.requires_grad()) flops_.backward += flops;
  if (b.requires_grad()) flops_.backward += flops;
}

at::Tensor Pass::Uniform(at::IntArrayRef shape, const at::Tensor& like) {
  return at::rand(shape, generator_,
                  at::TensorOptions().dtype(like.scalar_type()))
      .to(like.device());
}

}  // namespace backboned
