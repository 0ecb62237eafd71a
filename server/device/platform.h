// Describes the server's build and machine.

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

// The bytes of memory that this process may use: the machine's, or its control
// group's limit if that is less.
int64_t MachineMemoryBytes();

// The name that the processor gives.
std::string ProcessorName();

// The other things that decide the last bits of results besides the number of
// threads, by name: LibTorch's instruction set and switches, and those
// variables of the environment that are set and change them.
std::map<std::string, std::string> Numerics();

}  // namespace backboned

#endif  // BACKBONED_SERVER_DEVICE_PLATFORM_H_
