// The names, shapes, order and initialisation of an architecture's tensors.
//
// The parameters are in the order of their declaration, which is Python's order
// of registration and the order of the flat tensor. The order of the initial
// draws is separate, since Python's constructors may draw a parameter late, or
// twice: every draw advances the generator.
//
// An architecture's constructor declares the tensors once; from then on a
// layout is immutable and safe to share. Holds no tensor.

#ifndef BACKBONED_BACKBONES_LAYOUT_H_
#define BACKBONED_BACKBONES_LAYOUT_H_

#include <c10/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace backboned {

// The source of a tensor in a later column of a progressive network.
struct Origin {
  // Index of the earlier column, the oldest first.
  size_t column = 0;
  // The tensor's name in that column.
  std::string name;
};

// A trained tensor. Its dtype is the State's.
struct Parameter {
  // Its state-dict key, e.g. `layer1.0.conv1.weight`.
  std::string name;
  std::vector<int64_t> shape;
  int64_t elements = 0;
  // The index of its first element in the flat tensor of all parameters.
  int64_t offset = 0;
  // Further state-dict keys of the same tensor.
  std::vector<std::string> aliases = {};
  // True: of the head; false: of the trunk.
  bool head = false;
  // A position embedding of a class token and then a square grid, [1, 1 +
  // side^2, D], which may be loaded from one of another side.
  bool position_embedding = false;
};

// A tensor of the state that is not trained.
struct Buffer {
  // Its state-dict key, e.g. `bn1.running_mean`.
  std::string name;
  // Empty: a scalar.
  std::vector<int64_t> shape;
  // kFloat stands for the State's dtype.
  at::ScalarType dtype = at::kFloat;
  int64_t elements = 0;
  // The initial value of all elements.
  double initial = 0;
  // The buffer of an earlier column that replaces `initial`.
  std::optional<Origin> origin = {};
};

// A parameter of an earlier column, which is read and never trained. It is not
// in the flat tensor.
struct SharedTensor {
  // Its state-dict key in Python's class, e.g. `old_layer0s.0.weight`.
  std::string name;
  std::vector<int64_t> shape;
  Origin origin;
};

// Draws each element from U(low, high), and multiplies it by `factor`.
struct UniformDraw {
  double low = 0;
  double high = 0;
  double factor = 1;
};

// Draws each element from N(mean, std^2).
struct NormalDraw {
  double mean = 0;
  double std = 1;
};

// A NormalDraw cut off at `low` and `high`: Python's nn.init.trunc_normal_.
struct TruncatedNormalDraw {
  double mean = 0;
  double std = 1;
  double low = -2;
  double high = 2;
};

// Sets each element without a draw.
struct ConstantFill {
  double value = 0;
};

using InitRule =
    std::variant<UniformDraw, NormalDraw, TruncatedNormalDraw, ConstantFill>;

// A step of the initialisation, for one parameter. For a shared tensor it only
// advances the generator, as Python does before it copies.
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

  // Declares that the tensors from here on are those of an earlier column:
  // module `name` is that column's module `source`. Parameters become shared
  // tensors, whose indices follow those of the parameters: no parameter may be
  // declared afterwards. Buffers begin as the earlier column's.
  void BeginInherited(size_t column, std::string name, std::string source);

  // Declares a further state-dict key of a parameter.
  void AddAlias(size_t parameter, std::string name);

  // Declares that the parameters from here on are the head's.
  void BeginHead() { in_head_ = true; }

  // Declares the next BatchNorm layer by its name, the prefix of its tensors'
  // names, and returns its index among these layers.
  size_t AddBatchNorm(std::string name);
  // Declares that a parameter is a position embedding.
  void MarkPositionEmbedding(size_t parameter);

  // Declares the next step of the initialisation. A parameter may have several.
  void AddInitStep(size_t parameter, const InitRule& rule);

  const std::vector<Parameter>& parameters() const { return parameters_; }
  const std::vector<Buffer>& buffers() const { return buffers_; }
  const std::vector<SharedTensor>& shared() const { return shared_; }

  // The names of the BatchNorm layers.
  const std::vector<std::string>& batch_norms() const { return batch_norms_; }

  // The steps in the order of Python's constructor.
  const std::vector<InitStep>& init_steps() const { return init_steps_; }

  // P, the number of elements of all parameters.
  int64_t parameter_elements() const { return parameter_elements_; }

 private:
  // A module of an earlier column, under its name in this layout.
  struct Inheritance {
    size_t column = 0;
    std::string name;
    std::string source;
  };

  // Returns the source of `name`, a tensor of the inherited module.
  Origin OriginOf(const std::string& name) const;

  std::vector<Parameter> parameters_;
  std::vector<Buffer> buffers_;
  std::vector<std::string> batch_norms_;
  std::vector<SharedTensor> shared_;
  std::optional<Inheritance> inheritance_;
  std::vector<InitStep> init_steps_;
  bool in_head_ = false;
  int64_t parameter_elements_ = 0;
};

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_LAYOUT_H_
