// Moves tensors between a device and the host.

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

// Returns `tensor` as a contiguous CPU tensor of `dtype` (absent: its own):
// itself if it is one. An undefined tensor stays undefined. Call this on the
// device's worker or its copies only, unless `tensor` is a CPU tensor.
at::Tensor OnHost(const at::Tensor& tensor,
                  std::optional<at::ScalarType> dtype = {});

// As OnHost, of each tensor. Those of a GPU come by one copy for each dtype and
// each 64 MiB, and share memory then.
std::vector<at::Tensor> AllOnHost(std::vector<at::Tensor> tensors,
                                  std::optional<at::ScalarType> dtype = {});

// Returns `tensor` on `device`: itself if it is there. Call this on the worker
// only, or on that of its copies; the worker may use the copy once that has
// ended, and must have done with it before it is freed.
at::Tensor OnDevice(const at::Tensor& tensor, c10::Device device);

// Copies a contiguous CPU tensor to memory of its own, which this thread's
// account pays for. Computes nothing: may be called on any thread.
at::Tensor CopyOnHost(const at::Tensor& tensor);

// Returns a contiguous CPU tensor, or its CopyOnHost if it keeps more memory
// alive than its own bytes, as rows of a batch do. An undefined tensor stays
// undefined.
at::Tensor CompactOnHost(const at::Tensor& tensor);

// As AllOnHost, but the tensors keep no more memory alive than the bytes of all
// of them.
std::vector<at::Tensor> AllCompactOnHost(
    std::vector<at::Tensor> tensors, std::optional<at::ScalarType> dtype = {});

// The memory of a contiguous CPU tensor.
std::span<const std::byte> Bytes(const at::Tensor& tensor);

// The memory of a contiguous CPU tensor that nothing else refers to.
std::span<std::byte> MutableBytes(at::Tensor& tensor);

}  // namespace backboned

#endif  // BACKBONED_SERVER_DEVICE_HOST_VIEW_H_
