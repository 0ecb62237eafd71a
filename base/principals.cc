#include "base/principals.h"

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/names.h"

namespace backboned {

absl::Status CheckPrincipal(std::string_view name) {
  if (name == kLocalPrincipal || name == kServerPrincipal) {
    return absl::InvalidArgumentError(
        absl::StrCat(Quote(name), " is the server's own word"));
  }
  return CheckName(name);
}

NumberByPrincipal::NumberByPrincipal(
    std::initializer_list<Numbers::value_type> numbers) {
  Set(Numbers(numbers));
}

std::optional<double> NumberByPrincipal::Find(
    std::string_view principal) const {
  absl::MutexLock lock(&state_->mutex);
  const auto found = state_->numbers.find(principal);
  if (found == state_->numbers.end()) return std::nullopt;
  return found->second;
}

NumberByPrincipal::Numbers NumberByPrincipal::All() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->numbers;
}

void NumberByPrincipal::Set(Numbers numbers) {
  absl::MutexLock lock(&state_->mutex);
  state_->numbers = std::move(numbers);
}

}  // namespace backboned
