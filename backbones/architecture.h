// An Architecture: a backbone as a pure function.
//
//     outputs, new buffers = f(parameters, buffers, flags, x)
//
// It holds the layout and the forward, which is split into the trunk (input to
// features) and the head (features to logits), and owns no tensor: one
// Architecture serves any number of States, forwards and threads at once.
//
// A concrete architecture passes its Description up, then declares its layers,
// in Python's order of registration, into declare().

#ifndef BACKBONED_BACKBONES_ARCHITECTURE_H_
#define BACKBONED_BACKBONES_ARCHITECTURE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "backbones/arguments.h"
#include "backbones/layout.h"
#include "backbones/pass.h"

namespace backboned {

// The results of a trunk.
struct TrunkOutputs {
  // [N, D]
  at::Tensor features;
  // The stages in order: what Mammoth's `full` lists after `out`.
  std::vector<at::Tensor> layers;
};

class Architecture {
 public:
  virtual ~Architecture() = default;
  Architecture(const Architecture&) = delete;
  Architecture& operator=(const Architecture&) = delete;

  // The name in the registry, e.g. `resnet18`.
  const std::string& name() const { return description_.name; }

  // The arguments that built the architecture, defaults filled in.
  const Arguments& arguments() const { return description_.arguments; }

  // Attributes that code reads from Mammoth's backbone, e.g. `feature_dim`.
  const std::map<std::string, int64_t>& attributes() const {
    return description_.attributes;
  }

  // Shape of one input without the batch dimension, C H W; -1 stands for any
  // size. Empty: any shape with the right number of elements.
  const std::vector<int64_t>& input_shape() const {
    return description_.input_shape;
  }

  // `out`, `features`, `layers.0`, `layers.1`, ...
  const std::vector<std::string>& output_names() const { return output_names_; }

  // Returns whether forwards in training draw random numbers.
  bool stochastic() const { return description_.stochastic; }

  // Returns whether the stages are available as they are before their ReLU.
  bool has_prerelu() const { return description_.has_prerelu; }

  const Layout& layout() const { return layout_; }

  // Returns OK if an input [N, ...] of `shape` can run, else kInvalidArgument
  // (kShapeMismatch), which names `shape` and the expected one. Refuses all
  // that Python refuses, also if that depends on training mode.
  virtual absl::Status CheckInput(std::span<const int64_t> shape,
                                  bool training) const = 0;

  // Returns kInvalidArgument (kInvalidOption) if `outputs` is empty, or holds a
  // name twice or one that is not in output_names(), which it lists.
  absl::Status CheckOutputs(std::span<const std::string> outputs) const;

  // Computes the features and stages, of the pass's dtype and device, of `x`,
  // whose shape CheckInput accepts. Throws c10::Error if LibTorch fails.
  virtual TrunkOutputs Trunk(Pass& pass, const at::Tensor& x) const = 0;

  // Computes the logits [N, K] of `features` [N, D].
  virtual at::Tensor Head(Pass& pass, const at::Tensor& features) const = 0;

 protected:
  // Properties that are known before the layers are declared.
  struct Description {
    std::string name = {};
    Arguments arguments = {};
    std::map<std::string, int64_t> attributes = {};
    std::vector<int64_t> input_shape = {};
    // The number of stages.
    int64_t layer_count = 0;
    bool stochastic = false;
    bool has_prerelu = false;
  };

  explicit Architecture(Description description);

  // The layout, for the constructors of layers only.
  Layout& declare() { return layout_; }

  // The layout, from the first parameter of the head on. Only Head may use
  // these parameters: a fork draws them anew.
  Layout& declare_head() {
    layout_.BeginHead();
    return layout_;
  }

 private:
  Description description_;
  std::vector<std::string> output_names_;
  Layout layout_;
};

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_ARCHITECTURE_H_
