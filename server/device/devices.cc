#include "server/device/devices.h"

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace backboned {
namespace {

// Loads LibTorch's CUDA library, which registers the backend with the CPU
// library, so that the same binary serves machines with and without it.
absl::Status LoadCuda() {
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot load LibTorch's CUDA library: ", dlerror()));
  }
  return absl::OkStatus();
}

absl::StatusOr<c10::Device> OpenCuda(int index) {
  static const absl::Status loaded = LoadCuda();
  if (!loaded.ok()) return loaded;
  const c10::impl::DeviceGuardImplInterface* cuda =
      c10::impl::device_guard_impl_registry[static_cast<size_t>(
                                                c10::DeviceType::CUDA)]
          .load();
  const int count = cuda == nullptr ? 0 : cuda->deviceCount();
  if (index >= count) {
    return absl::FailedPreconditionError(
        count == 0 ? "LibTorch finds no CUDA device on this machine"
                   : absl::StrCat("there is no cuda:", index,
                                  ", the last is cuda:", count - 1));
  }
  return c10::Device(c10::DeviceType::CUDA,
                     static_cast<c10::DeviceIndex>(index));
}

absl::StatusOr<c10::Device> OpenDevice(const std::string& name) {
  if (name == "cpu") return c10::Device(c10::DeviceType::CPU);
  if (name == "cuda") return OpenCuda(0);
  int index = 0;
  if (name.starts_with("cuda:") && absl::SimpleAtoi(name.substr(5), &index) &&
      index >= 0 && index < 64) {
    return OpenCuda(index);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "no device ", Quote(name), "; valid devices: cpu, cuda, cuda:N"));
}

}  // namespace

absl::StatusOr<std::vector<c10::Device>> OpenDevices(
    const std::vector<std::string>& names) {
  std::vector<c10::Device> devices;
  for (const std::string& name : names) {
    absl::StatusOr<c10::Device> device = OpenDevice(name);
    if (!device.ok()) return device.status();
    devices.push_back(*device);
  }
  return devices;
}

void WaitFor(c10::Device device) {
  if (device.is_cpu()) return;
  const c10::impl::VirtualGuardImpl backend(device.type());
  backend.synchronizeStream(backend.getStream(device));
}

}  // namespace backboned
