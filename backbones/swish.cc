#include "backbones/swish.h"

#include <ATen/ops/add.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/rsub.h>
#include <ATen/ops/sigmoid.h>
#include <torch/csrc/autograd/custom_function.h>

namespace backboned {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// LibTorch calls `forward` and `backward` by name.
class SwishFunction : public torch::autograd::Function<SwishFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x) {
    context->save_for_backward({x});
    return at::mul(x, at::sigmoid(x));
  }

  static variable_list backward(AutogradContext* context,
                                const variable_list& grads) {
    const at::Tensor x = context->get_saved_variables()[0];
    const at::Tensor sigmoid = at::sigmoid(x);
    const at::Tensor slope = at::add(at::mul(x, at::rsub(sigmoid, 1)), 1);
    return {at::mul(grads[0], at::mul(sigmoid, slope))};
  }
};

}  // namespace

at::Tensor Swish(const at::Tensor& x) { return SwishFunction::apply(x); }

}  // namespace backboned
