// A backbone with known gradients, which runs a test's hooks.

#ifndef BACKBONED_TESTS_TESTING_FAKE_ARCHITECTURE_H_
#define BACKBONED_TESTS_TESTING_FAKE_ARCHITECTURE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "backbones/architecture.h"
#include "backbones/layers.h"

namespace backboned {

// features = scale * x and out = head * features, element by element, for
// samples of `size` elements; at first scale is 2 and head 3. With g, the
// gradient of `out`, summed over the batch:
//
//   d scale = head * x * g    d head = scale * x * g    d x = scale * head * g
//
// The parameters, `size` elements each: scale, bn.weight, bn.bias, head. The
// outputs do not depend on the BatchNorm, so its parameters never get
// gradients, but its buffers are updated in training, and one counts the
// training forwards. The layout's head is `head`.
//
// Thread-safe.
class FakeArchitecture : public Architecture {
 public:
  explicit FakeArchitecture(int64_t size);
  ~FakeArchitecture() override;

  // Runs `hook` at the beginning of each forward, or in the middle of each
  // backward, from now on, on the computing thread. It may throw, or wait.
  void OnForward(std::function<void()> hook) const;
  void OnBackward(std::function<void()> hook) const;

  // Returns the number of forwards that began.
  int64_t forward_count() const;

  // Takes [N, ...] with `size` elements a sample; in training two samples.
  absl::Status CheckInput(std::span<const int64_t> shape,
                          bool training) const override;
  TrunkOutputs Trunk(Pass& pass, const at::Tensor& x) const override;
  at::Tensor Head(Pass& pass, const at::Tensor& features) const override;

 private:
  struct Hooks;

  const int64_t size_;
  const std::shared_ptr<Hooks> hooks_;  // Tapes may outlive the architecture.
  size_t scale_;
  BatchNorm2d bn_;
  size_t head_;
};

}  // namespace backboned

#endif  // BACKBONED_TESTS_TESTING_FAKE_ARCHITECTURE_H_
