// Makes and compares tensors for the tests of backbones.

#ifndef BACKBONED_TESTS_BACKBONES_TENSORS_H_
#define BACKBONED_TESTS_BACKBONES_TENSORS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "backbones/architecture.h"
#include "backbones/state.h"

namespace backboned {

inline constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Builds an architecture, which must succeed.
std::shared_ptr<const Architecture> Build(std::string_view name,
                                          const Arguments& arguments);

// Builds a ResNet18 of three classes and four filters.
std::shared_ptr<const Architecture> SmallResNet();

// Returns whether `architecture` takes input of `shape`.
absl::Status CheckInput(const Architecture& architecture,
                        const std::vector<int64_t>& shape,
                        bool training = false);

// Returns the State of `torch.manual_seed(seed)` and Python's class.
StatePtr Seeded(const Architecture& architecture, uint64_t seed = 0);

// Returns the tensor of `torch.manual_seed(seed); torch.rand(shape)`.
at::Tensor Rand(uint64_t seed, const std::vector<int64_t>& shape);

// Returns four images for SmallResNet, [4, 3, 16, 16].
at::Tensor Images(uint64_t seed);

// Returns the elements of a contiguous float32 tensor.
std::vector<float> ValuesOf(const at::Tensor& tensor);

// Returns whether both are undefined, or have equal shapes, dtypes and bits.
bool BitEqual(const at::Tensor& a, const at::Tensor& b);
bool BitEqual(const std::vector<at::Tensor>& a,
              const std::vector<at::Tensor>& b);

// Returns deep copies.
std::vector<at::Tensor> Copies(const std::vector<at::Tensor>& tensors);

// An architecture `features = w * x`, `out = features + b`, for samples of size
// 2. The sums of its gradients of `w` show the order of the summation.
class Scale : public Architecture {
 public:
  Scale();
  absl::Status CheckInput(std::span<const int64_t> shape,
                          bool training) const override;
  TrunkOutputs Trunk(Pass& pass, const at::Tensor& x) const override;
  at::Tensor Head(Pass& pass, const at::Tensor& features) const override;

 private:
  size_t w_;
  size_t b_;
};

}  // namespace backboned

#endif  // BACKBONED_TESTS_BACKBONES_TENSORS_H_
