// Makes names that cannot be guessed.

#ifndef BACKBONED_BASE_RANDOM_ID_H_
#define BACKBONED_BASE_RANDOM_ID_H_

#include <string>

namespace backboned {

// Returns 128 bits of the system's randomness as 32 hexadecimal digits.
// Thread-safe.
std::string RandomId();

}  // namespace backboned

#endif  // BACKBONED_BASE_RANDOM_ID_H_
