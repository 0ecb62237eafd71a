// Checks the variables `BACKBONED_...` of the process's environment.

#ifndef BACKBONED_SERVER_PROCESS_ENVIRONMENT_H_
#define BACKBONED_SERVER_PROCESS_ENVIRONMENT_H_

#include <span>
#include <string>

#include "absl/status/status.h"

namespace backboned {

// Returns kInvalidArgument if `environment`, strings `NAME=value` before a null
// pointer, has a variable `BACKBONED_...` that nothing reads: neither the
// server (`options` are the variables of its options), nor the clients, nor the
// tests. The message names the variable and the nearest option.
absl::Status CheckEnvironment(const char* const* environment,
                              std::span<const std::string> options);

}  // namespace backboned

#endif  // BACKBONED_SERVER_PROCESS_ENVIRONMENT_H_
