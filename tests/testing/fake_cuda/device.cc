#include "tests/testing/fake_cuda/device.h"

#include <algorithm>
#include <array>
#include <utility>

#include "tests/testing/fake_cuda/streams.h"

namespace fake_cuda {
namespace {

thread_local c10::DeviceIndex this_device = 0;
thread_local std::array<c10::StreamId, kMaxDevices> these_streams = {};

}  // namespace

int DeviceCount() {
  static const int count = static_cast<int>(
      std::min<int64_t>(Setting("FAKE_CUDA_DEVICES", 1), kMaxDevices));
  return count;
}

c10::DeviceIndex CurrentDevice() { return this_device; }

c10::DeviceIndex ExchangeDevice(c10::DeviceIndex device) {
  return std::exchange(this_device, device);
}

c10::Stream CurrentStream(c10::DeviceIndex device) {
  return StreamOf(device, these_streams.at(static_cast<size_t>(device)));
}

c10::Stream ExchangeStream(const c10::Stream& stream) {
  const c10::DeviceIndex device = stream.device_index();
  return StreamOf(device,
                  std::exchange(these_streams.at(static_cast<size_t>(device)),
                                stream.id()));
}

c10::Stream StreamOf(c10::DeviceIndex device, c10::StreamId id) {
  return c10::Stream(c10::Stream::UNSAFE,
                     c10::Device(c10::DeviceType::CUDA, device), id);
}

}  // namespace fake_cuda
