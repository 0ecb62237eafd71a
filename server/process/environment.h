// The variables `BACKBONED_...` of the process's environment.

#ifndef BACKBONED_SERVER_PROCESS_ENVIRONMENT_H_
#define BACKBONED_SERVER_PROCESS_ENVIRONMENT_H_

#include <span>
#include <string>

#include "absl/status/status.h"

namespace backboned {

// Returns kInvalidArgument if `environment`, strings `NAME=value` that end with
// a null pointer, has a variable `BACKBONED_...` that nobody reads: it is none
// of `options`, the variables of the server's options, and none of the clients'
// and the tests'. Names the variable, and the option that is nearest to it.
absl::Status CheckEnvironment(const char* const* environment,
                              std::span<const std::string> options);

}  // namespace backboned

#endif  // BACKBONED_SERVER_PROCESS_ENVIRONMENT_H_
