#include "server/host_view.h"

namespace backboned {

at::Tensor OnHost(const at::Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  return tensor.to(at::kCPU).contiguous();
}

at::Tensor OnDevice(const at::Tensor& tensor, c10::Device device) {
  if (!tensor.defined()) return tensor;
  return tensor.to(device);
}

std::span<const std::byte> Bytes(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()),
          tensor.nbytes()};
}

std::span<std::byte> MutableBytes(at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()};
}

}  // namespace backboned
