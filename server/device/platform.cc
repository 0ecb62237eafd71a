#include "server/device/platform.h"

#include <ATen/Context.h>
#include <ATen/Version.h>
#include <torch/headeronly/version.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

namespace backboned {
namespace {

// Variables that MKL and oneDNN read at their start.
constexpr const char* kVariables[] = {
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
};

// That of the process's start. Work on a GPU in another precision sets the same
// switch, which a CPU does not heed.
const at::Float32MatmulPrecision kPrecision =
    at::globalContext().float32MatmulPrecision();

std::string PrecisionName(at::Float32MatmulPrecision precision) {
  switch (precision) {
    case at::Float32MatmulPrecision::HIGHEST:
      return "highest";
    case at::Float32MatmulPrecision::HIGH:
      return "high";
    case at::Float32MatmulPrecision::MEDIUM:
      return "medium";
  }
  return "";
}

}  // namespace

std::string Version() { return BACKBONED_VERSION; }

std::string TorchVersion() { return TORCH_VERSION; }

int64_t MachineMemoryBytes() {
  const int64_t machine =
      int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  std::ifstream file("/sys/fs/cgroup/memory.max");
  int64_t group = 0;
  // The file contains "max" if there is no limit.
  return file >> group && group > 0 ? std::min(machine, group) : machine;
}

std::string ProcessorName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "unknown processor";
}

std::map<std::string, std::string> Numerics() {
  const at::Context& context = at::globalContext();
  std::map<std::string, std::string> result = {
      {"cpu_capability", at::get_cpu_capability()},
      {"float32_matmul_precision", PrecisionName(kPrecision)},
      {"mkldnn", context.userEnabledMkldnn() ? "on" : "off"},
  };
  if (context.deterministicAlgorithms()) result["deterministic"] = "on";
  for (const char* name : kVariables) {
    if (const char* value = std::getenv(name)) result[name] = value;
  }
  return result;
}

}  // namespace backboned
