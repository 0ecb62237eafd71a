// What this server is.

#ifndef BACKBONED_SERVER_DEVICE_PLATFORM_H_
#define BACKBONED_SERVER_DEVICE_PLATFORM_H_

#include <cstdint>
#include <map>
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

// What the last bits of results depend on besides the above and the number of
// threads, by name: LibTorch's instruction set and switches, and those
// variables of the environment that are set and change them.
std::map<std::string, std::string> Numerics();

}  // namespace backboned

#endif  // BACKBONED_SERVER_DEVICE_PLATFORM_H_
