#include "server/version.h"

#include <torch/headeronly/version.h>

#include <fstream>

namespace backboned {

std::string Version() { return BACKBONED_VERSION; }

std::string TorchVersion() { return TORCH_VERSION; }

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
