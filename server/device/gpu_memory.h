// Counts the memory of GPUs, and gives it back.

#ifndef BACKBONED_SERVER_DEVICE_GPU_MEMORY_H_
#define BACKBONED_SERVER_DEVICE_GPU_MEMORY_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <c10/core/Device.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <cstdint>
#include <memory>
#include <span>

#include "server/limits/memory_account.h"

namespace backboned {

// The memory of a GPU, in bytes.
struct GpuMemory {
  int64_t allocated = 0;  // Of tensors.
  int64_t pooled = 0;     // Kept for reuse.
  int64_t free = 0;       // That no process has.
  int64_t total = 0;
};

// Returns the figures of now. Zeros if it has not been used, or is lost.
GpuMemory GpuMemoryOf(c10::Device gpu);

// Gives the pooled memory of all GPUs back, for other processes. Waits for the
// GPUs. `gpu` is one that this process has used: CUDA would begin with another.
void ReleasePooledGpuMemory(c10::Device gpu);

// Charges this thread's account (see ScopedAccount) with the GPU memory of a
// tensor until that is freed, by whatever thread. Each memory is charged once.
// A CPU tensor is not: the MemoryRoom has charged it.
//
// LibTorch's allocator knows no accounts. So this is for tensors that stay: of
// States and tapes. The GPU alone limits memory that a computation takes for
// itself.
//
// Call this on the worker or its copies, before other threads know the tensor.
// Throws OutOfMemoryBudget over a limit.
void CountOnGpu(const at::Tensor& tensor);

// Charges `account` with GPU memory until the returned object is gone. Throws
// OutOfMemoryBudget over a limit.
std::shared_ptr<const void> ChargeGpuMemory(
    std::shared_ptr<MemoryAccount> account, int64_t bytes);

// Measures the memory of a GPU that this thread allocates, less what it frees,
// while the object lives.
class GpuMeter {
 public:
  explicit GpuMeter(c10::Device gpu);

  int64_t bytes() const;

 private:
  struct Reports;

  const std::shared_ptr<Reports> reports_;
  const c10::DebugInfoGuard guard_;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_DEVICE_GPU_MEMORY_H_
