// What this server is.

#ifndef BACKBONED_SERVER_VERSION_H_
#define BACKBONED_SERVER_VERSION_H_

#include <cstdint>
#include <string>

namespace backboned {

// Backboned's version, e.g. `0.1.0`.
std::string Version();

// LibTorch's version, e.g. `2.11.0`.
std::string TorchVersion();

// Bytes of memory that this process may use: the machine's, or its control
// group's limit if that is less.
int64_t MachineMemoryBytes();

// What the processor calls itself.
std::string ProcessorName();

}  // namespace backboned

#endif  // BACKBONED_SERVER_VERSION_H_
