// Registers the fake devices with LibTorch: their guard, streams, events,
// hooks.

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/Exception.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <utility>

#include "tests/testing/fake_cuda/device.h"
#include "tests/testing/fake_cuda/memory.h"
#include "tests/testing/fake_cuda/streams.h"

namespace fake_cuda {
namespace {

// CUDA has so many streams of each priority that LibTorch gives out.
constexpr int64_t kPoolStreams = 32;

std::atomic<int64_t> next_stream = 0;

c10::DeviceIndex IndexOf(c10::Device device) {
  return device.has_index() ? device.index() : CurrentDevice();
}

Event& EventOf(void* event) { return *static_cast<Event*>(event); }

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return c10::DeviceType::CUDA; }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before = getDevice();
    setDevice(device);
    return before;
  }
  c10::Device getDevice() const override {
    return {c10::DeviceType::CUDA, CurrentDevice()};
  }
  void setDevice(c10::Device device) const override {
    TORCH_CHECK(device.index() >= 0 && device.index() < DeviceCount(),
                "CUDA error: invalid device ordinal (fake)");
    ExchangeDevice(device.index());
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    ExchangeDevice(device.index());
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    return static_cast<c10::DeviceIndex>(DeviceCount());
  }

  c10::Stream getStream(c10::Device device) const override {
    return CurrentStream(IndexOf(device));
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return StreamOf(IndexOf(device), 0);
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    return StreamOf(IndexOf(device), 1 + next_stream++ % kPoolStreams);
  }
  c10::Stream getNewStream(c10::Device device, int) const override {
    return getStreamFromGlobalPool(device, false);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    return fake_cuda::ExchangeStream(stream);
  }
  bool queryStream(const c10::Stream& stream) const override {
    return Streams::Get().Query(stream);
  }
  void synchronizeStream(const c10::Stream& stream) const override {
    Streams::Get().Wait(stream);
  }
  void synchronizeDevice(c10::DeviceIndex device) const override {
    Streams::Get().WaitForDevice(device);
  }
  void recordDataPtrOnStream(const c10::DataPtr& data,
                             const c10::Stream& stream) const override {
    // CUDA's allocator passes over what has another deleter.
    if (data.get_deleter() == DeviceMemory().raw_deleter()) {
      Streams::Get().Recorded(stream, data.get());
    }
  }

  void destroyEvent(void* event, c10::DeviceIndex) const noexcept override {
    delete static_cast<Event*>(event);
  }
  void record(void** event, const c10::Stream& stream, c10::DeviceIndex,
              c10::EventFlag) const override {
    if (*event == nullptr) *event = new Event;
    Streams::Get().Record(stream, EventOf(*event));
  }
  void block(void* event, const c10::Stream& stream) const override {
    if (event != nullptr) Streams::Get().Block(stream, EventOf(event));
  }
  bool queryEvent(void* event) const override {
    return event == nullptr || Streams::Get().Query(EventOf(event));
  }
  void synchronizeEvent(void* event) const override {
    if (event != nullptr) Streams::Get().Wait(EventOf(event));
  }
  double elapsedTime(void* begin, void* end, c10::DeviceIndex) const override {
    return std::chrono::duration<double, std::milli>(EventOf(end).time -
                                                     EventOf(begin).time)
        .count();
  }
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard);

}  // namespace

}  // namespace fake_cuda

// The server asks these functions of the driver and of CUDA's runtime.
// FAKE_CUDA_DRIVER is the driver's version, as that tells it.
extern "C" int cuDriverGetVersion(int* version) {
  *version = static_cast<int>(fake_cuda::Setting("FAKE_CUDA_DRIVER", 13000));
  return *version == 0 ? 100 : 0;
}
extern "C" int cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return 0;
}
// With FAKE_CUDA_PINS=0 no memory can be pinned.
extern "C" int cudaHostRegister(void* memory, size_t bytes, unsigned) {
  const bool pins = fake_cuda::Setting("FAKE_CUDA_PINS", 1) != 0;
  return fake_cuda::LastError(pins && fake_cuda::Register(memory, bytes) ? 0
                                                                         : 1);
}
extern "C" int cudaHostUnregister(void* memory) {
  return fake_cuda::LastError(fake_cuda::Unregister(memory) ? 0 : 1);
}
extern "C" int cudaGetLastError() {
  return std::exchange(fake_cuda::last_error, 0);
}
extern "C" int cuDeviceGetName(char* name, int size, int) {
  std::snprintf(name, static_cast<size_t>(size), "Fake GPU");
  return 0;
}

// The registry makes it by its name, which has no namespace.
struct CUDAHooks final : at::CUDAHooksInterface {
  CUDAHooks() = default;
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return hasCUDA(); }
  bool hasCUDA() const override { return fake_cuda::DeviceCount() > 0; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override {
    return static_cast<c10::DeviceIndex>(fake_cuda::DeviceCount());
  }
  int getNumGPUs() const override { return fake_cuda::DeviceCount(); }
  c10::DeviceIndex current_device() const override {
    return fake_cuda::CurrentDevice();
  }
  c10::DeviceIndex getCurrentDevice() const override {
    return fake_cuda::CurrentDevice();
  }
  void setCurrentDevice(c10::DeviceIndex device) const override {
    fake_cuda::ExchangeDevice(device);
  }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex device) const override {
    return fake_cuda::ExchangeDevice(device);
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex device) const override {
    return exchangeDevice(device);
  }
  void deviceSynchronize(c10::DeviceIndex device) const override {
    fake_cuda::Streams::Get().WaitForDevice(device);
  }
  bool isPinnedPtr(const void* data) const override {
    return fake_cuda::IsPinned(data);
  }
  c10::Allocator* getPinnedMemoryAllocator() const override {
    return &fake_cuda::PinnedMemory();
  }
  c10::Allocator* getCUDADeviceAllocator() const override {
    return &fake_cuda::DeviceMemory();
  }
};

namespace at {
REGISTER_CUDA_HOOKS(CUDAHooks);
}
