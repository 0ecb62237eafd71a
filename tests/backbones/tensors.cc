#include "tests/backbones/tensors.h"

#include <ATen/ops/rand.h>
#include <gtest/gtest.h>

#include <cstring>

#include "backbones/architectures.h"
#include "backbones/initial_draw.h"

namespace backboned {

std::shared_ptr<const Architecture> Build(std::string_view name,
                                          const Arguments& arguments) {
  auto architecture = BuildArchitecture(name, arguments);
  EXPECT_TRUE(architecture.ok()) << architecture.status();
  return architecture.value();
}

std::shared_ptr<const Architecture> SmallResNet() {
  return Build("resnet18", {{"num_classes", 3}, {"num_filters", 4}});
}

absl::Status CheckInput(const Architecture& architecture,
                        const std::vector<int64_t>& shape, bool training) {
  return architecture.CheckInput(shape, training);
}

StatePtr Seeded(const Architecture& architecture, uint64_t seed) {
  return InitialState(architecture.layout(), SeededGenerator(seed), at::kCPU);
}

at::Tensor Rand(uint64_t seed, const std::vector<int64_t>& shape) {
  return at::rand(shape, SeededGenerator(seed));
}

at::Tensor Images(uint64_t seed) { return Rand(seed, {4, 3, 16, 16}); }

std::vector<float> ValuesOf(const at::Tensor& tensor) {
  const float* data = tensor.const_data_ptr<float>();
  return {data, data + tensor.numel()};
}

bool BitEqual(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined() || !b.defined()) {
    return a.defined() == b.defined();
  }
  const at::Tensor x = a.contiguous();
  const at::Tensor y = b.contiguous();
  return x.sizes() == y.sizes() && x.dtype() == y.dtype() &&
         std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
}

bool BitEqual(const std::vector<at::Tensor>& a,
              const std::vector<at::Tensor>& b) {
  bool equal = a.size() == b.size();
  for (size_t i = 0; equal && i < a.size(); ++i) {
    equal = BitEqual(a[i], b[i]);
  }
  return equal;
}

std::vector<at::Tensor> Copies(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> copies;
  for (const at::Tensor& tensor : tensors) {
    copies.push_back(tensor.defined() ? tensor.clone() : at::Tensor());
  }
  return copies;
}

Scale::Scale()
    : Architecture({.name = "scale", .input_shape = {2}}),
      w_(declare().AddParameter("w", {1})),
      b_(declare().AddParameter("b", {1})) {
  declare().AddInitStep(w_, ConstantFill{3});
  declare().AddInitStep(b_, ConstantFill{0});
}

absl::Status Scale::CheckInput(std::span<const int64_t> /*shape*/,
                               bool /*training*/) const {
  return absl::OkStatus();
}

TrunkOutputs Scale::Trunk(Pass& pass, const at::Tensor& x) const {
  return {.features = x.mul(pass.parameter(w_)), .layers = {}};
}

at::Tensor Scale::Head(Pass& pass, const at::Tensor& features) const {
  return features.add(pass.parameter(b_));
}

}  // namespace backboned
