// The current device and streams of each thread.

#ifndef BACKBONED_TESTS_TESTING_FAKE_CUDA_DEVICE_H_
#define BACKBONED_TESTS_TESTING_FAKE_CUDA_DEVICE_H_

#include <c10/core/Device.h>
#include <c10/core/Stream.h>

namespace fake_cuda {

inline constexpr int kMaxDevices = 16;

// FAKE_CUDA_DEVICES, 1 by default.
int DeviceCount();

// Of this thread. Exchange returns the former one.
c10::DeviceIndex CurrentDevice();
c10::DeviceIndex ExchangeDevice(c10::DeviceIndex device);
c10::Stream CurrentStream(c10::DeviceIndex device);
c10::Stream ExchangeStream(const c10::Stream& stream);

c10::Stream StreamOf(c10::DeviceIndex device, c10::StreamId id);

}  // namespace fake_cuda

#endif  // BACKBONED_TESTS_TESTING_FAKE_CUDA_DEVICE_H_
