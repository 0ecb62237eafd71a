// What an architecture's tensors are: names, shapes, order, and how they begin.
//
// The order of the parameters is the order of their declaration, which is
// Python's order of registration and the order of the flat tensor. The order of
// the initial draws is kept apart from it, since Python's constructors may draw
// a parameter late, or twice: every draw moves the generator on.
//
// Declared once, by an architecture's constructor; immutable and safe to share
// from then on. Holds no tensor.

#ifndef BACKBONED_BACKBONES_LAYOUT_H_
#define BACKBONED_BACKBONES_LAYOUT_H_

#include <c10/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace backboned {

// A tensor that is trained. float32.
struct Parameter {
  // Its state-dict key, e.g. `layer1.0.conv1.weight`.
  std::string name;
  std::vector<int64_t> shape;
  int64_t elements = 0;
  // Its first element in the flat tensor of all parameters.
  int64_t offset = 0;
  // Further state-dict keys of the same tensor.
  std::vector<std::string> aliases = {};
  // Whether it is the head's, not the trunk's.
  bool head = false;
};

// A tensor of the state that is not trained.
struct Buffer {
  // Its state-dict key, e.g. `bn1.running_mean`.
  std::string name;
  // Empty: a scalar.
  std::vector<int64_t> shape;
  at::ScalarType dtype = at::kFloat;
  int64_t elements = 0;
  // The value of all its elements at first.
  double initial = 0;
};

// Draws each element from U(low, high).
struct UniformDraw {
  double low = 0;
  double high = 0;
};

// Draws each element from N(mean, std^2).
struct NormalDraw {
  double mean = 0;
  double std = 1;
};

// As NormalDraw, cut off at `low` and `high`: Python's nn.init.trunc_normal_.
struct TruncatedNormalDraw {
  double mean = 0;
  double std = 1;
  double low = -2;
  double high = 2;
};

// Sets each element, which leaves the generator alone.
struct ConstantFill {
  double value = 0;
};

using InitRule =
    std::variant<UniformDraw, NormalDraw, TruncatedNormalDraw, ConstantFill>;

// One step of the initialisation, applied to one parameter.
struct InitStep {
  size_t parameter = 0;
  InitRule rule;
};

class Layout {
 public:
  // Declares the next parameter and returns its index. It must be the target of
  // an initialisation step before the layout is used.
  size_t AddParameter(std::string name, std::vector<int64_t> shape);

  // Declares the next buffer and returns its index.
  size_t AddBuffer(std::string name, std::vector<int64_t> shape,
                   at::ScalarType dtype, double initial);

  // Declares a further state-dict key of a parameter.
  void AddAlias(size_t parameter, std::string name);

  // Declares that the parameters declared from here on are the head's.
  void BeginHead() { in_head_ = true; }

  // Declares the next BatchNorm layer by its name, the prefix of its tensors'
  // names, and returns its index among these layers.
  size_t AddBatchNorm(std::string name);

  // Declares the next step of the initialisation. It may target a parameter
  // again.
  void AddInitStep(size_t parameter, const InitRule& rule);

  const std::vector<Parameter>& parameters() const { return parameters_; }
  const std::vector<Buffer>& buffers() const { return buffers_; }

  // Names of the BatchNorm layers.
  const std::vector<std::string>& batch_norms() const { return batch_norms_; }

  // The steps in the order in which Python's constructor takes them.
  const std::vector<InitStep>& init_steps() const { return init_steps_; }

  // P, the number of elements of all parameters.
  int64_t parameter_elements() const { return parameter_elements_; }

  // Bytes of all parameters and buffers.
  int64_t state_bytes() const;

 private:
  std::vector<Parameter> parameters_;
  std::vector<Buffer> buffers_;
  std::vector<std::string> batch_norms_;
  std::vector<InitStep> init_steps_;
  bool in_head_ = false;
  int64_t parameter_elements_ = 0;
};

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_LAYOUT_H_
