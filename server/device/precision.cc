#include "server/device/precision.h"

#include <ATen/Context.h>

#include <cstdint>
#include <cstdlib>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace backboned {
namespace {

struct Tf32 {
  bool convolutions = true;
  bool products = false;

  bool operator==(const Tf32&) const = default;
};

Tf32 Tf32Of(Precision precision) {
  switch (precision) {
    case Precision::kHighest:
      return {.convolutions = false, .products = false};
    case Precision::kTf32:
      return {.convolutions = true, .products = true};
    default:
      return {};
  }
}

// The process's switches, and how many scopes need them as they are.
class Switches {
 public:
  static Switches& Get() {
    static auto* const switches = new Switches;  // NOLINT: the process's.
    return *switches;
  }

  // First come, first served, so that nobody waits without end.
  void Hold(Tf32 wanted) {
    absl::MutexLock lock(&mutex_);
    const int64_t turn = last_turn_++;
    while (turn != next_turn_ || (holders_ > 0 && present_ != wanted)) {
      changed_.Wait(&mutex_);
    }
    ++next_turn_;
    ++holders_;
    changed_.SignalAll();
    if (present_ == wanted) return;
    present_ = wanted;
    at::globalContext().setAllowTF32CuDNN(wanted.convolutions);
    at::globalContext().setAllowTF32CuBLAS(wanted.products);
  }

  void Release() {
    absl::MutexLock lock(&mutex_);
    if (--holders_ == 0) changed_.SignalAll();
  }

 private:
  absl::Mutex mutex_;
  absl::CondVar changed_;
  std::optional<Tf32> present_ ABSL_GUARDED_BY(mutex_);  // Set by us.
  int holders_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t last_turn_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t next_turn_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace

void ComputeDeterministically() {
  // cuBLAS reads it as it starts. LibTorch refuses its products without.
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicCuDNN(true);
  // It would fill new memory, so that who reads it gets the same each time.
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

ScopedPrecision::ScopedPrecision(c10::Device device, Precision precision)
    : is_held_(!device.is_cpu()) {
  if (is_held_) Switches::Get().Hold(Tf32Of(precision));
}

ScopedPrecision::~ScopedPrecision() {
  if (is_held_) Switches::Get().Release();
}

}  // namespace backboned
