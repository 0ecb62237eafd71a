// Checks the variables `BACKBONED_...` of the process's environment.

#ifndef BACKBONED_SERVER_PROCESS_ENVIRONMENT_H_
#define BACKBONED_SERVER_PROCESS_ENVIRONMENT_H_

#include <span>
#include <string>
#include <vector>

namespace backboned {

// Returns a sentence for each variable BACKBONED_... of `environment`, strings
// `NAME=value` before a null pointer, that nothing reads: neither the server,
// whose options have the variables `options`, nor the clients, nor the tests.
// The sentence names the variable and the nearest option.
std::vector<std::string> UnknownVariables(const char* const* environment,
                                          std::span<const std::string> options);

}  // namespace backboned

#endif  // BACKBONED_SERVER_PROCESS_ENVIRONMENT_H_
