// Switches PyTorch's autocast.

#ifndef BACKBONED_BACKBONES_AUTOCAST_H_
#define BACKBONED_BACKBONES_AUTOCAST_H_

#include <ATen/core/Tensor.h>
#include <c10/core/DeviceType.h>
#include <c10/core/ScalarType.h>

#include <vector>

namespace backboned {

// Lets this thread's operators on a type of device compute in bfloat16 where
// PyTorch's autocast does, while the object lives.
class ScopedAutocast {
 public:
  ScopedAutocast(bool on, c10::DeviceType device);
  ~ScopedAutocast();

  ScopedAutocast(const ScopedAutocast&) = delete;
  ScopedAutocast& operator=(const ScopedAutocast&) = delete;

  // Returns what the scope has computed in `dtype`.
  at::Tensor Result(const at::Tensor& computed, at::ScalarType dtype) const {
    return on_ ? computed.to(dtype) : computed;
  }

 private:
  const bool on_;
  const c10::DeviceType device_;
};

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_AUTOCAST_H_
