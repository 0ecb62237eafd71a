// A run through an architecture: the tensors that it uses, and its flags.
//
// An architecture owns no tensor; its layers ask the Pass for theirs. A layer
// that changes a tensor (BatchNorm statistics) puts a new one into the Pass:
// the given tensors are never written, since other passes and recorded forwards
// hold them.
//
// Not thread-safe; one Pass serves one forward.

#ifndef BACKBONED_BACKBONES_PASS_H_
#define BACKBONED_BACKBONES_PASS_H_

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backbones/batch_norm.h"
#include "backbones/flops.h"

namespace backboned {

// The flags of a pass.
struct PassFlags {
  // Uses batch statistics, updates the running ones, and drops out.
  bool training = false;
  // Returns stages as they are before their ReLU.
  bool prerelu = false;
  // By BatchNorm layer of the layout. Empty: all as by default.
  std::vector<BatchNormMode> batch_norm = {};
};

// One BatchNorm layer and its tensors, as indices into the layout.
struct BatchNormTensors {
  size_t layer = 0;
  size_t weight = 0;
  size_t bias = 0;
  size_t running_mean = 0;
  size_t running_var = 0;
  size_t num_batches_tracked = 0;
};

class Pass {
 public:
  // `parameters` (and behind them the shared tensors) and `buffers`: all of the
  // layout, in its order. The parameters may need gradients. Random numbers
  // come from `generator`, a CPU generator, which only stochastic architectures
  // in training need.
  Pass(std::vector<at::Tensor> parameters, std::vector<at::Tensor> buffers,
       const PassFlags& flags, at::Generator generator = {});

  const PassFlags& flags() const { return flags_; }
  const at::Tensor& parameter(size_t index) const { return parameters_[index]; }

  // Normalises `x` [N, C, H, W] as Python's nn.BatchNorm2d does with `eps` and
  // `momentum`, unless the layer's mode sets them. In training the layer's
  // three buffers are replaced if it tracks them.
  //
  // Throws c10::Error if the layer is in training and a channel has a single
  // value, as Python does.
  at::Tensor BatchNorm(const at::Tensor& x, const BatchNormTensors& tensors,
                       double eps, double momentum);

  // Zeroes elements of `x` with probability `p` and scales the others by 1 / (1
  // - p), as Python's nn.Dropout does. In evaluation returns `x`.
  at::Tensor Dropout(const at::Tensor& x, double p);

  // Zeroes whole samples of `x` [N, ...] with probability `p` and scales the
  // others by 1 / (1 - p), as timm's DropPath does. In evaluation returns `x`.
  at::Tensor DropPath(const at::Tensor& x, double p);

  // Draws a tensor of `shape` from U(0, 1), on the device of `like`.
  at::Tensor Uniform(at::IntArrayRef shape, const at::Tensor& like);

  // Counts a product of `a` and `b` that takes so many multiplications.
  void CountProduct(const at::Tensor& a, const at::Tensor& b,
                    int64_t multiplications);

  // Returns the operations of all products that were counted.
  const Flops& flops() const { return flops_; }

  // Returns the buffers after the layers that ran so far, in layout order.
  const std::vector<at::Tensor>& buffers() const { return buffers_; }

 private:
  // Returns what a BatchNorm layer in training puts in the place of a buffer: a
  // copy of statistics, which it then changes, or a count one higher.
  at::Tensor NextBuffer(size_t index);

  // Fills `next_buffers_`.
  void MakeNextBuffers();

  std::vector<at::Tensor> parameters_;
  std::vector<at::Tensor> buffers_;
  // On a GPU, by buffer: made for all layers by two launches. Undefined once a
  // layer has taken its own.
  std::vector<at::Tensor> next_buffers_;
  PassFlags flags_;
  at::Generator generator_;
  Flops flops_;
};

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_PASS_H_
