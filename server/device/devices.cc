#include "server/device/devices.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>

#include <array>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/errors.h"
#include "server/device/platform.h"

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

// Returns a function of the driver's library, or of those that LibTorch's CUDA
// library has loaded, or null. So no header of CUDA's is needed; the types are
// as these libraries document them.
template <typename... Arguments>
auto FindFunction(const char* name) {
  // There is none without a driver. It stays loaded.
  static void* const driver = dlopen("libcuda.so.1", RTLD_NOW);
  void* found = driver == nullptr ? nullptr : dlsym(driver, name);
  void* const libtorch = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD);
  if (found == nullptr && libtorch != nullptr) found = dlsym(libtorch, name);
  return reinterpret_cast<int (*)(Arguments...)>(found);
}

// Returns what a function says of a version: 1000 times the major number, and
// 10 times the minor one. 0: it says nothing.
int VersionBy(const char* function) {
  int version = 0;
  const auto ask = FindFunction<int*>(function);
  return ask != nullptr && ask(&version) == 0 ? version : 0;
}

std::string FormatVersion(int version) {
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

// Returns why LibTorch finds no GPU.
std::string WhyNoGpu() {
  const int driver = VersionBy("cuDriverGetVersion");
  const int needed = VersionBy("cudaRuntimeGetVersion");
  if (driver == 0)
    return "there is no NVIDIA driver on this machine, which CUDA needs";
  if (driver / 1000 < needed / 1000) {
    return absl::StrCat("the NVIDIA driver has CUDA ", FormatVersion(driver),
                        ", and LibTorch needs ", FormatVersion(needed),
                        ": update the driver");
  }
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return absl::StrCat(
      "LibTorch finds no CUDA device on this machine",
      visible == nullptr
          ? ""
          : absl::StrCat(", CUDA_VISIBLE_DEVICES is ", Quote(visible)));
}

// Lets a GPU do something: it may be full, in use by others alone, or too old.
absl::Status Try(c10::Device gpu) {
  try {
    at::empty({1}, at::device(gpu)).fill_(0);
    WaitFor(gpu);
    return absl::OkStatus();
  } catch (const c10::Error& error) {
    const std::vector<std::string> lines =
        absl::StrSplit(error.what_without_backtrace(), '\n');
    return absl::FailedPreconditionError(
        absl::StrCat("cannot use ", gpu.str(), ": ", lines.front()));
  }
}

// Calls a function of the CUDA runtime in the context of `gpu`, and returns
// whether it succeeds. Leaves no error behind, which the next kernel's launch
// would report.
template <typename... Arguments>
bool Succeeds(c10::Device gpu, const char* function, Arguments... arguments) {
  const auto call = FindFunction<Arguments...>(function);
  const auto take_error = FindFunction<>("cudaGetLastError");
  if (call == nullptr || take_error == nullptr) return false;
  try {
    const c10::DeviceGuard guard(gpu);
    if (call(arguments...) == 0) return true;
  } catch (const c10::Error&) {
    // The context is lost, as the worker finds out.
  }
  take_error();
  return false;
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
        count == 0 ? WhyNoGpu()
                   : absl::StrCat("there is no cuda:", index,
                                  ", the last is cuda:", count - 1));
  }
  const c10::Device gpu(c10::DeviceType::CUDA,
                        static_cast<c10::DeviceIndex>(index));
  absl::Status works = Try(gpu);
  if (!works.ok()) return works;
  return gpu;
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

std::string DescriptionOf(c10::Device device) {
  if (device.is_cpu()) return ProcessorName();
  std::array<char, 256> name = {};
  const auto ask = FindFunction<char*, int, int>("cuDeviceGetName");
  const bool told =
      ask != nullptr && ask(name.data(), int{name.size()}, device.index()) == 0;
  return told ? name.data() : "unknown GPU";
}

std::string DriverVersion() {
  const int version = VersionBy("cuDriverGetVersion");
  return version == 0 ? "" : FormatVersion(version);
}

void WarmUp(c10::Device device) {
  const at::AutoGradMode grad_mode(true);
  const auto ones = [&](at::IntArrayRef sizes) {
    return at::ones(sizes, at::device(device));
  };
  const at::Tensor images = ones({2, 3, 8, 8});
  const at::Tensor kernels = ones({8, 3, 3, 3}).requires_grad_();
  const at::Tensor weight = ones({4, 8 * 6 * 6}).requires_grad_();
  const at::Tensor features = at::conv2d(images, kernels).flatten(1);
  at::linear(features, weight).sum().backward();
  WaitFor(device);
}

bool PinHostMemory(c10::Device gpu, void* memory, size_t bytes) {
  constexpr unsigned kPortable = 1;  // For all GPUs: cudaHostRegisterPortable.
  return Succeeds(gpu, "cudaHostRegister", memory, bytes, kPortable);
}

void UnpinHostMemory(c10::Device gpu, void* memory) {
  Succeeds(gpu, "cudaHostUnregister", memory);
}

void WaitFor(c10::Device device) {
  if (device.is_cpu()) return;
  const c10::impl::VirtualGuardImpl backend(device.type());
  backend.synchronizeStream(backend.getStream(device));
}

}  // namespace backboned
