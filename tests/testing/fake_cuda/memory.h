// The memory of fake devices.

#ifndef BACKBONED_TESTS_TESTING_FAKE_CUDA_MEMORY_H_
#define BACKBONED_TESTS_TESTING_FAKE_CUDA_MEMORY_H_

#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <cstddef>
#include <cstdint>

namespace fake_cuda {

// Allocates on the current device of the thread. Blocks can neither be read nor
// written at their addresses: host code that touches one dies with SIGSEGV.
c10::DeviceAllocator& DeviceMemory();

// Pinned memory of the host is ordinary memory, but known.
c10::Allocator& PinnedMemory();
bool IsPinned(const void* data);

// Pins memory of the program's, which it must unpin before it is unmapped, and
// undoes it. Return false if some of it is pinned, or none is.
bool Register(const void* data, size_t bytes);
bool Unregister(const void* data);
int64_t registrations();  // The number of those so far that succeeded.

// Returns where the bytes of device memory are, for kernels.
void* Shadow(const void* data);

}  // namespace fake_cuda

#endif  // BACKBONED_TESTS_TESTING_FAKE_CUDA_MEMORY_H_
