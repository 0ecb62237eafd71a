#include "server/version.h"

#include <torch/headeronly/version.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace backboned {

std::string Version() { return BACKBONED_VERSION; }

std::string TorchVersion() { return TORCH_VERSION; }

int64_t MachineMemoryBytes() {
  const int64_t machine =
      int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  std::ifstream file("/sys/fs/cgroup/memory.max");
  int64_t group = 0;
  // The file says "max" if there is no limit.
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

}  // namespace backboned
