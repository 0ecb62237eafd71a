// A model of a server in plain numbers: the state of an instance of the fake
// architecture (tests/testing/fake_architecture.h), and its tapes.

#ifndef BACKBONED_TESTS_CLIENT_CPP_RANDOM_MODEL_H_
#define BACKBONED_TESTS_CLIENT_CPP_RANDOM_MODEL_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace backboned::client::random {

// The elements of each parameter, and of a sample.
inline constexpr size_t kSize = 2;

// The parameters in layout order. The BatchNorm's never get gradients.
inline constexpr size_t kScale = 0;
inline constexpr size_t kHead = 3;
inline constexpr size_t kParameters = 4;
inline constexpr std::array<const char*, kParameters> kNames = {
    "scale", "bn.weight", "bn.bias", "head"};

using Values = std::vector<double>;
// By parameter; absent: it has none.
using PerParameter = std::array<std::optional<Values>, kParameters>;
using Mask = std::array<bool, kParameters>;

// Adds `more` to `sums`, as gradients are added.
void AddTo(PerParameter& sums, const PerParameter& more);

// SGD.
struct OptimizerModel {
  double lr = 0;
  double momentum = 0;
  Mask stepped = {};  // The parameters of its group.
  PerParameter momenta = {};
};

struct BufferModel {
  Values mean = Values(kSize, 0);
  Values variance = Values(kSize, 1);
  int64_t batches = 0;

  // Updates the buffers by a batch of at least two samples.
  void Move(const Values& x);
};

// The options of a step.
struct StepWish {
  std::optional<double> lr;
  bool zero_after = false;
};

struct InstanceModel {
  std::string uid;
  std::array<Values, kParameters> params = {Values(kSize, 2), Values(kSize, 1),
                                            Values(kSize, 0), Values(kSize, 3)};
  PerParameter grads = {};
  BufferModel buffers = {};
  uint64_t params_version = 1;
  uint64_t buffers_version = 1;
  bool read_only = false;
  Mask frozen = {};
  std::optional<OptimizerModel> optimizer = {};

  Mask trained() const;

  // Steps with the present gradients, and returns the number of changed
  // parameters. 0: nothing changed.
  int64_t Step(const StepWish& wish);

  // Returns the largest absolute value of parameters, gradients and momenta.
  double Largest() const;
};

// A kept forward, or one that runs.
struct TapeModel {
  std::string uid;  // The instance's.
  Values scale;
  Values head;
  Values x;
  bool has_out = true;
  bool has_features = false;
  bool input_grad = false;
  Mask mask = {};  // The parameters that get gradients.
  bool gone = false;

  Values Features() const;
  Values Out() const;
};

// The gradients of a tape's outputs; absent: none.
struct OutputGrads {
  std::optional<Values> out;
  std::optional<Values> features;
};

struct TapeGrads {
  PerParameter params;
  std::optional<Values> input;
};

// Returns the vector-Jacobian product of a tape.
TapeGrads Differentiate(const TapeModel& tape, const OutputGrads& grads);

}  // namespace backboned::client::random

#endif  // BACKBONED_TESTS_CLIENT_CPP_RANDOM_MODEL_H_
