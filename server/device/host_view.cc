#include "server/device/host_view.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <utility>

namespace backboned {
namespace {

// Tensors that are copied together take so much more of a GPU's memory, and one
// more tensor's.
constexpr size_t kMaxBytesAtOnce = size_t{64} << 20;

}  // namespace

at::Tensor OnHost(const at::Tensor& tensor,
                  std::optional<at::ScalarType> dtype) {
  if (!tensor.defined()) return tensor;
  return (dtype ? tensor.to(*dtype) : tensor).to(at::kCPU).contiguous();
}

std::vector<at::Tensor> AllOnHost(std::vector<at::Tensor> tensors,
                                  std::optional<at::ScalarType> dtype) {
  // The tensors of each dtype that one copy is to bring.
  std::map<at::ScalarType, std::vector<at::Tensor*>> groups;
  std::map<at::ScalarType, size_t> bytes;
  const auto bring = [](std::vector<at::Tensor*>& group) {
    std::vector<at::Tensor> flat;
    for (const at::Tensor* tensor : group) {
      flat.push_back(tensor->reshape({-1}));
    }
    const at::Tensor host = OnHost(flat.size() == 1 ? flat[0] : at::cat(flat));
    int64_t begin = 0;
    for (at::Tensor* tensor : group) {
      const int64_t count = tensor->numel();
      *tensor = host.narrow(0, begin, count).view(tensor->sizes());
      begin += count;
    }
    group.clear();
  };
  for (at::Tensor& tensor : tensors) {
    if (!tensor.defined() || tensor.is_cpu()) {  // As an Adam's step count is.
      tensor = OnHost(tensor, dtype);
      continue;
    }
    if (dtype) tensor = tensor.to(*dtype);
    const at::ScalarType kind = tensor.scalar_type();
    groups[kind].push_back(&tensor);
    bytes[kind] += tensor.nbytes();
    if (bytes[kind] < kMaxBytesAtOnce) continue;
    bring(groups[kind]);
    bytes[kind] = 0;
  }
  for (auto& [kind, group] : groups) {
    if (!group.empty()) bring(group);
  }
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

std::vector<at::Tensor> AllCompactOnHost(std::vector<at::Tensor> tensors,
                                         std::optional<at::ScalarType> dtype) {
  std::vector<bool> was_here;
  for (const at::Tensor& tensor : tensors) {
    was_here.push_back(!tensor.defined() || tensor.is_cpu());
  }
  tensors = AllOnHost(std::move(tensors), dtype);
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (was_here[i]) tensors[i] = CompactOnHost(tensors[i]);
  }
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
