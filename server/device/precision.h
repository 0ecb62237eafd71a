// Chooses the numbers with which a device computes.

#ifndef BACKBONED_SERVER_DEVICE_PRECISION_H_
#define BACKBONED_SERVER_DEVICE_PRECISION_H_

#include <c10/core/Device.h>

namespace backboned {

enum class Precision {
  kDefault,   // On a GPU: TF32 in convolutions, float32 in products.
  kHighest,   // float32 in both.
  kTf32,      // TF32 in both.
  kBfloat16,  // As kDefault, and autocast to bfloat16, which Forward does.
};

// Lets all work of the process give the same bits each time. Work for which
// LibTorch has no such algorithm fails. Call this before a GPU is used.
void ComputeDeterministically();

// Lets the work of this thread on `device` compute with a precision while the
// object lives.
//
// LibTorch's switches are the process's. So a scope waits until no other thread
// has one of another precision on a GPU, and for those that waited before.
// Nothing waits for a CPU, which has no TF32.
class ScopedPrecision {
 public:
  ScopedPrecision(c10::Device device, Precision precision);
  ~ScopedPrecision();

  ScopedPrecision(const ScopedPrecision&) = delete;
  ScopedPrecision& operator=(const ScopedPrecision&) = delete;

 private:
  const bool is_held_;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_DEVICE_PRECISION_H_
