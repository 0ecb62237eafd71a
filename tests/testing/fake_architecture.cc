#include "tests/testing/fake_architecture.h"

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/errors.h"

namespace backboned {

struct FakeArchitecture::Hooks {
  // Runs the present hook, which may wait, without the lock.
  void Run(const std::function<void()>& member) ABSL_LOCKS_EXCLUDED(mutex) {
    std::function<void()> hook;
    {
      absl::MutexLock lock(&mutex);
      hook = member;
    }
    if (hook) hook();
  }

  absl::Mutex mutex;
  std::function<void()> forward;
  std::function<void()> backward;
  int64_t forward_count ABSL_GUARDED_BY(mutex) = 0;
};

FakeArchitecture::FakeArchitecture(int64_t size)
    : Architecture({.name = "fake",
                    .arguments = {{"size", size}},
                    .attributes = {{"size", size}},
                    .layer_count = 1}),
      size_(size),
      hooks_(std::make_shared<Hooks>()),
      scale_(declare().AddParameter("scale", {size})),
      bn_(declare(), "bn", size),
      head_(declare_head().AddParameter("head", {size})) {
  declare().AddInitStep(scale_, ConstantFill{2});
  declare().AddInitStep(head_, ConstantFill{3});
}

FakeArchitecture::~FakeArchitecture() = default;

void FakeArchitecture::OnForward(std::function<void()> hook) const {
  absl::MutexLock lock(&hooks_->mutex);
  hooks_->forward = std::move(hook);
}

void FakeArchitecture::OnBackward(std::function<void()> hook) const {
  absl::MutexLock lock(&hooks_->mutex);
  hooks_->backward = std::move(hook);
}

int64_t FakeArchitecture::forward_count() const {
  absl::MutexLock lock(&hooks_->mutex);
  return hooks_->forward_count;
}

absl::Status FakeArchitecture::CheckInput(std::span<const int64_t> shape,
                                          bool training) const {
  int64_t elements = 1;
  for (size_t i = 1; i < shape.size(); ++i) {
    if (shape[i] < 1 || shape[i] > size_) elements = size_ + 1;
    if (elements <= size_) elements *= shape[i];
  }
  if (shape.size() < 2 || shape[0] < (training ? 2 : 0) || elements != size_) {
    return Error(absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
                 absl::StrCat("input has shape ", FormatShape(shape),
                              ", expected [N, ", size_, "]"));
  }
  return absl::OkStatus();
}

TrunkOutputs FakeArchitecture::Trunk(Pass& pass, const at::Tensor& x) const {
  {
    absl::MutexLock lock(&hooks_->mutex);
    ++hooks_->forward_count;
  }
  hooks_->Run(hooks_->forward);
  const at::Tensor flat = x.reshape({x.size(0), size_});
  if (pass.flags().training || !pass.flags().batch_norm.empty()) {
    bn_(pass, flat.detach().view({x.size(0), size_, 1, 1}));
  }
  const at::Tensor features = flat.mul(pass.parameter(scale_));
  if (features.requires_grad()) {
    features.register_hook(
        [hooks = hooks_](const at::Tensor&) { hooks->Run(hooks->backward); });
  }
  return {.features = features, .layers = {features}};
}

at::Tensor FakeArchitecture::Head(Pass& pass,
                                  const at::Tensor& features) const {
  return features.mul(pass.parameter(head_));
}

}  // namespace backboned
