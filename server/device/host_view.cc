#include "server/device/host_view.h"

#include <ATen/ops/empty.h>

#include <cstring>

namespace backboned {

at::Tensor OnHost(const at::Tensor& tensor,
                  std::optional<at::ScalarType> dtype) {
  if (!tensor.defined()) return tensor;
  return (dtype ? tensor.to(*dtype) : tensor).to(at::kCPU).contiguous();
}

std::vector<at::Tensor> AllOnHost(std::vector<at::Tensor> tensors,
                                  std::optional<at::ScalarType> dtype) {
  for (at::Tensor& tensor : tensors) tensor = OnHost(tensor, dtype);
  return tensors;
}

at::Tensor OnDevice(const at::Tensor& tensor, c10::Device device) {
  if (!tensor.defined()) return tensor;
  return tensor.to(device);
}

at::Tensor CopyOnHost(const at::Tensor& tensor) {
  at::Tensor copy = at::empty(tensor.sizes(), tensor.options());
  std::memcpy(MutableBytes(copy).data(), tensor.const_data_ptr(),
              tensor.nbytes());
  return copy;
}

at::Tensor CompactOnHost(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.storage().nbytes() <= tensor.nbytes()) {
    return tensor;
  }
  return CopyOnHost(tensor);
}

std::vector<at::Tensor> AllCompactOnHost(std::vector<at::Tensor> tensors) {
  for (at::Tensor& tensor : tensors) tensor = CompactOnHost(tensor);
  return tensors;
}

std::span<const std::byte> Bytes(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()),
          tensor.nbytes()};
}

std::span<std::byte> MutableBytes(at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()};
}

}  // namespace backboned
