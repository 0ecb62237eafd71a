// The one seam between device tensors and the wire.

#ifndef BACKBONED_SERVER_DEVICE_HOST_VIEW_H_
#define BACKBONED_SERVER_DEVICE_HOST_VIEW_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace backboned {

// Returns `tensor` as a contiguous CPU tensor: itself if it is one already. An
// undefined tensor stays undefined. Computes: on the device's worker only,
// unless `tensor` is a CPU tensor already.
at::Tensor OnHost(const at::Tensor& tensor);

// As OnHost, of each tensor, as `dtype` (absent: as it is).
std::vector<at::Tensor> AllOnHost(std::vector<at::Tensor> tensors,
                                  std::optional<at::ScalarType> dtype = {});

// Returns `tensor` on `device`: itself if it is there already. On the worker
// only.
at::Tensor OnDevice(const at::Tensor& tensor, c10::Device device);

// Returns a copy of a contiguous CPU tensor, in memory of its own, which this
// thread's account pays for. Computes nothing: on any thread.
at::Tensor CopyOnHost(const at::Tensor& tensor);

// Returns a contiguous CPU tensor itself, or a CopyOnHost if it keeps more
// memory alive than its own, as rows of a batch do. An undefined tensor stays
// undefined.
at::Tensor CompactOnHost(const at::Tensor& tensor);

// As CompactOnHost, of each tensor.
std::vector<at::Tensor> AllCompactOnHost(std::vector<at::Tensor> tensors);

// The memory of a contiguous CPU tensor.
std::span<const std::byte> Bytes(const at::Tensor& tensor);

// The memory of a contiguous CPU tensor that nobody else knows yet.
std::span<std::byte> MutableBytes(at::Tensor& tensor);

}  // namespace backboned

#endif  // BACKBONED_SERVER_DEVICE_HOST_VIEW_H_
