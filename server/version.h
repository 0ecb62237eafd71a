// What this server is.

#ifndef BACKBONED_SERVER_VERSION_H_
#define BACKBONED_SERVER_VERSION_H_

#include <string>

namespace backboned {

// Backboned's version, e.g. `0.1.0`.
std::string Version();

// LibTorch's version, e.g. `2.11.0`.
std::string TorchVersion();

// What the processor calls itself.
std::string ProcessorName();

}  // namespace backboned

#endif  // BACKBONED_SERVER_VERSION_H_
