// Compares architectures with figures of Mammoth's, tests/data/backbones.

#include <ATen/Version.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/rand.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/escaping.h"
#include "backbones/forward.h"
#include "backbones/initial_draw.h"
#include "tests/backbones/tensors.h"

namespace backboned {
namespace {

using nlohmann::json;

// Returns the tensors, flat and concatenated, in `dtype`.
at::Tensor Flat(const std::vector<at::Tensor>& tensors, at::ScalarType dtype) {
  std::vector<at::Tensor> parts;
  for (const at::Tensor& tensor : tensors) {
    parts.push_back(tensor.reshape({-1}).to(dtype));
  }
  return at::cat(parts);
}

std::string Sha256(const at::Tensor& tensor) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest;
  SHA256(static_cast<const unsigned char*>(tensor.const_data_ptr()),
         tensor.nbytes(), digest.data());
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest.data()),  // NOLINT
                        digest.size()));
}

// `tolerance` is relative to the tensor's magnitudes.
void ExpectFingerprint(const at::Tensor& tensor, const json& expected,
                       double tolerance, const std::string& what) {
  SCOPED_TRACE(what);
  ASSERT_EQ(tensor.sizes().vec(),
            expected["shape"].get<std::vector<int64_t>>());
  const at::Tensor values = tensor.reshape({-1}).to(at::kDouble);
  const double magnitude = expected["abs"];
  const double square = expected["sq"];
  EXPECT_NEAR(values.sum().item<double>(), expected["sum"].get<double>(),
              tolerance * magnitude);
  EXPECT_NEAR(values.abs().sum().item<double>(), magnitude,
              tolerance * magnitude);
  EXPECT_NEAR(values.square().sum().item<double>(), square, tolerance * square);
  const double mean = magnitude / static_cast<double>(tensor.numel());
  for (size_t i = 0; i < expected["first"].size(); ++i) {
    const double first = expected["first"][i];
    EXPECT_NEAR(values[static_cast<int64_t>(i)].item<double>(), first,
                tolerance * (std::abs(first) + mean));
  }
}

// GoogleTest's names of cases must have no underscore.
std::string TestName(const ::testing::TestParamInfo<std::string>& test) {
  std::string name = test.param;
  std::erase_if(name, [](char c) { return c == '_' || c == '-'; });
  return name;
}

// Returns whether LibTorch computes without AVX2. Its draws then have other
// last bits, since it rounds twice where a fused multiply-add rounds once.
bool WithoutAvx2() { return at::get_cpu_capability() == "DEFAULT"; }

class FingerprintTest : public ::testing::TestWithParam<std::string> {
 protected:
  FingerprintTest() {
    std::ifstream file("tests/data/backbones/" + GetParam() + ".json");
    expected_ = json::parse(file);
    Arguments arguments;
    for (const auto& [name, value] : expected_["kwargs"].items()) {
      if (name == "pretrained") continue;  // Not an argument here.
      if (value.is_string()) {
        arguments[name] = value.get<std::string>();
      } else {
        arguments[name] = value.get<int64_t>();
      }
    }
    architecture_ = Build(expected_["name"].get<std::string>(), arguments);
  }

  // Returns whether the initial parameters have the same bits on all processors
  // with AVX2. Truncated normals do not: their erfinv depends on the type of
  // processor.
  bool DrawsEqualBits() const {
    return std::ranges::none_of(
        architecture_->layout().init_steps(), [](const InitStep& step) {
          return std::holds_alternative<TruncatedNormalDraw>(step.rule);
        });
  }

  json expected_;
  std::shared_ptr<const Architecture> architecture_;
};

// Backbones with known layout and initial parameters.
using LayoutFingerprintTest = FingerprintTest;

TEST_P(LayoutFingerprintTest, DeclaresMammothsTensors) {
  const Layout& layout = architecture_->layout();
  EXPECT_EQ(layout.parameter_elements(), expected_["n_params"]);
  EXPECT_EQ(layout.parameters().size(), expected_["n_param_tensors"]);
  EXPECT_EQ(layout.buffers().size(), expected_["n_buffers"]);
  EXPECT_EQ(architecture_->attributes(),
            (expected_["attrs"].get<std::map<std::string, int64_t>>()));
  json parameters = json::array();
  json buffers = json::array();
  std::set<std::string> keys;
  int64_t offset = 0;
  for (const Parameter& parameter : layout.parameters()) {
    EXPECT_EQ(parameter.offset, offset);
    offset += parameter.elements;
    parameters.push_back({parameter.name, parameter.shape});
    keys.insert(parameter.name);
    keys.insert(parameter.aliases.begin(), parameter.aliases.end());
  }
  for (const Buffer& buffer : layout.buffers()) {
    const bool whole = buffer.dtype == at::kLong;
    buffers.push_back({buffer.name, buffer.shape, whole ? "int64" : "float32"});
    keys.insert(buffer.name);
  }
  EXPECT_EQ(keys.size(), expected_["n_state_keys"]);
  EXPECT_EQ(parameters, expected_["parameters"]);
  EXPECT_EQ(buffers, expected_["buffers"]);
  EXPECT_EQ(keys, expected_["state_dict_keys"].get<std::set<std::string>>());
}

TEST_P(LayoutFingerprintTest, DrawsPythonsInitialParameters) {
  const at::Generator generator = SeededGenerator(0);
  const auto state = InitialState(architecture_->layout(), generator, at::kCPU);
  const json& expected = expected_["init_seed0"];
  const at::Tensor params = Flat(state->params, at::kFloat);
  ExpectFingerprint(params, expected, 1e-6, "params");
  if (DrawsEqualBits() && !WithoutAvx2()) {
    EXPECT_EQ(Sha256(params), expected["params_sha256"]);
  }
  EXPECT_EQ(at::rand({1}, generator).item<float>(),
            expected["next_rand"].get<float>());
}

INSTANTIATE_TEST_SUITE_P(
    Backbones, LayoutFingerprintTest,
    ::testing::Values(
        "mnistmlp_num_classes10", "resnet18_num_classes10",
        "resnet18_num_classes10_num_filters20", "resnet18_num_classes100",
        "resnet18_num_classes200", "reduced-resnet18_num_classes10",
        "reduced-resnet18_num_classes100", "preact-resnet18_num_classes10",
        "resnet34_num_classes10", "resnet34_num_classes100",
        "resnet18-spr_num_classes10", "resnet18-pnn_num_classes10",
        "mnistmlp-pnn_num_classes10_input_size784", "resnet32_num_classes100",
        "resnet50_num_classes10", "resnet50_num_classes200",
        "efficientnet_num_classes10_efficientnet_typeb0",
        "efficientnet_num_classes10_efficientnet_typeb3",
        "vit_num_classes10_pretrainedFalse",
        "vit_num_classes100_pretrainedFalse"),
    TestName);

std::vector<at::Tensor> Present(std::vector<at::Tensor> grads) {
  std::erase_if(grads, [](const at::Tensor& grad) { return !grad.defined(); });
  return grads;
}

// Backbones of which the outputs and gradients are known, too.
//
// They run in float64: of a deep network with BatchNorm, single gradients in
// float32 differ by 1e-3 and more between processors.
class ForwardFingerprintTest : public FingerprintTest {
 protected:
  // Returns Python's initial parameters, converted to float64.
  StatePtr InitialDoubles() const {
    return InitialState(architecture_->layout(), SeededGenerator(0), at::kCPU,
                        at::kDouble);
  }

  at::Tensor Input() const {
    std::vector<int64_t> shape = expected_["input"];
    shape.insert(shape.begin(), BatchSize());
    return Rand(1, shape).to(at::kDouble);
  }

  // Returns the first size in `x = torch.rand(N, ...)`.
  int64_t BatchSize() const {
    const std::string x = expected_["x"];
    return std::stoll(x.substr(x.find("rand(") + 5));
  }

  // Returns the names of the parameters without a gradient.
  json AbsentNames(const std::vector<at::Tensor>& grads) const {
    json names = json::array();
    for (size_t i = 0; i < grads.size(); ++i) {
      if (grads[i].defined()) continue;
      names.push_back(architecture_->layout().parameters()[i].name);
    }
    return names;
  }

  // Expects agreement with other processors: nearly the same results from the
  // same bits, and from parameters that differ in their last bits of float32
  // about as many equal digits as the parameters have.
  void ExpectAgrees(const at::Tensor& tensor, const json& expected,
                    const std::string& what) const {
    const double tolerance = WithoutAvx2()      ? 1e-4
                             : DrawsEqualBits() ? 1e-9
                                                : 1e-5;
    ExpectFingerprint(tensor, expected, tolerance, what);
  }
};

TEST_P(ForwardFingerprintTest, GivesMammothsOutputs) {
  const auto result = Forward(*architecture_, *InitialDoubles(), Input(),
                              {.outputs = architecture_->output_names()});
  const json& expected = expected_["float64"]["eval"];
  ExpectAgrees(result.outputs[0], expected["out"], "out");
  // Mammoth's progressive networks raise, or return `out` for all requests.
  if (GetParam().find("-pnn_") != std::string::npos) return;
  ExpectAgrees(result.outputs[1], expected["features"], "features");
  const json& full = expected["full"];
  if (!full.is_array()) {  // Mammoth's class returns `out`, or raises.
    return;
  }
  ExpectAgrees(result.outputs[0], full[1], "full");
  if (full[2].is_object()) {
    // Mammoth's perceptron lists only its features, our last stage.
    ExpectAgrees(result.outputs.back(), full[2], "full");
    return;
  }
  // A word, then the stages.
  ASSERT_EQ(result.outputs.size() - 2, full[2].size() - 1);
  for (size_t i = 2; i < result.outputs.size(); ++i) {
    ExpectAgrees(result.outputs[i], full[2][i - 1],
                 architecture_->output_names()[i]);
  }
}

TEST_P(ForwardFingerprintTest, GivesMammothsGradientsAndBuffersInTraining) {
  if (WithoutAvx2()) {
    GTEST_SKIP() << "without AVX2 the initial parameters have other last bits, "
                    "by which single gradients of a deep network with "
                    "BatchNorm change by a tenth";
  }
  // The loss is the sum of the logits' squares.
  auto result = Forward(*architecture_, *InitialDoubles(), {Input(), true},
                        {.training = true,
                         .rng_state = GeneratorState(SeededGenerator(2)),
                         .record = true});
  const GraphGradients request = {result.graph.get(),
                                  {result.outputs[0].mul(2)}};
  const auto grads = Backward({&request, 1}, false, true);
  const json& expected = expected_["float64"]["train"];
  ExpectAgrees(result.outputs[0], expected["out"], "out");
  ExpectAgrees(Flat(Present(grads.grads), at::kDouble), expected["grad"],
               "grad");
  EXPECT_EQ(AbsentNames(grads.grads), expected["absent_grads"]);
  ExpectAgrees(grads.input_grads[0].x(), expected["input_grad"], "input_grad");
  if (architecture_->stochastic()) {
    const auto state = std::as_bytes(std::span(result.rng_state));
    EXPECT_EQ(at::rand({1}, GeneratorFromState(state).value()).item<float>(),
              expected["next_rand"].get<float>());
  }
  if (!expected["buffers_after"].is_null()) {
    ExpectAgrees(Flat(result.buffers, at::kDouble), expected["buffers_after"],
                 "buffers_after");
  }
}

INSTANTIATE_TEST_SUITE_P(
    Backbones, ForwardFingerprintTest,
    ::testing::Values("mnistmlp_num_classes10", "resnet18_num_classes10",
                      "resnet18_num_classes10_num_filters20",
                      "reduced-resnet18_num_classes10",
                      "preact-resnet18_num_classes10", "resnet34_num_classes10",
                      "resnet18-spr_num_classes10",
                      "resnet18-pnn_num_classes10",
                      "mnistmlp-pnn_num_classes10_input_size784",
                      "resnet32_num_classes100", "resnet50_num_classes10",
                      "efficientnet_num_classes10_efficientnet_typeb0",
                      "efficientnet_num_classes10_efficientnet_typeb0_in32",
                      "efficientnet_num_classes10_efficientnet_typeb3",
                      "vit_num_classes10_pretrainedFalse"),
    TestName);

}  // namespace
}  // namespace backboned
