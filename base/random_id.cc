#include "base/random_id.h"

#include <sys/random.h>

#include <array>
#include <cstdlib>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"

namespace backboned {

std::string RandomId() {
  std::array<char, 16> bytes;
  if (getentropy(bytes.data(), bytes.size()) != 0) std::abort();
  return absl::BytesToHexString(absl::string_view(bytes.data(), bytes.size()));
}

}  // namespace backboned
