// Holds the inputs of a forward by name.

#ifndef BACKBONED_BACKBONES_INPUTS_H_
#define BACKBONED_BACKBONES_INPUTS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace backboned {

struct Input {
  std::string name = {};  // Empty: the images.
  at::Tensor tensor;
  bool grad = false;  // Backward may ask for the gradient, if recorded.
};

// The inputs of a forward, the images first. In the same form: the leaves of
// its graph, and their gradients.
struct Inputs {
  Inputs() = default;

  // The images alone, [N, C, ...]. Implicit: most forwards have no other input.
  Inputs(at::Tensor x, bool grad = false)  // NOLINT
      : all{{.tensor = std::move(x), .grad = grad}} {}

  const at::Tensor& x() const { return all.at(0).tensor; }
  int64_t rows() const { return x().dim() == 0 ? 0 : x().size(0); }

  int64_t bytes() const {
    size_t bytes = 0;
    for (const Input& input : all) bytes += input.tensor.nbytes();
    return static_cast<int64_t>(bytes);
  }

  // Returns these inputs with `change(tensor)` in place of each tensor.
  template <typename Change>
  Inputs Map(Change change) const {
    Inputs changed = *this;
    for (Input& input : changed.all) input.tensor = change(input.tensor);
    return changed;
  }

  // Returns `count` rows of each input, from row `begin` on.
  Inputs Rows(int64_t begin, int64_t count) const {
    return Map([&](const at::Tensor& x) { return x.narrow(0, begin, count); });
  }

  std::vector<Input> all;
};

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_INPUTS_H_
