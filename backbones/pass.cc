#include "backbones/pass.h"

#include <ATen/ops/batch_norm.h>
#include <c10/util/Exception.h>

#include <utility>

namespace backboned {

Pass::Pass(std::vector<at::Tensor> parameters, std::vector<at::Tensor> buffers,
           const PassFlags& flags)
    : parameters_(std::move(parameters)),
      buffers_(std::move(buffers)),
      flags_(flags) {}

at::Tensor Pass::BatchNorm(const at::Tensor& x, const BatchNormTensors& tensors,
                           double eps, double momentum) {
  if (flags_.training) {
    TORCH_CHECK(x.numel() != x.size(1),
                "BatchNorm needs more than one value per channel in "
                "training, got an input of shape ",
                x.sizes());
    // LibTorch writes the statistics in place without bumping their version
    // counter, so autograd would not notice that an earlier forward's are gone.
    buffers_[tensors.running_mean] = buffers_[tensors.running_mean].clone();
    buffers_[tensors.running_var] = buffers_[tensors.running_var].clone();
    buffers_[tensors.num_batches_tracked] =
        buffers_[tensors.num_batches_tracked].add(1);
  }
  return at::batch_norm(
      x, parameters_[tensors.weight], parameters_[tensors.bias],
      buffers_[tensors.running_mean], buffers_[tensors.running_var],
      flags_.training, momentum, eps, /*cudnn_enabled=*/true);
}

}  // namespace backboned
