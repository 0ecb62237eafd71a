#include "server/byte_budget.h"

#include <utility>

namespace backboned {

ByteBudget::Reservation::Reservation(ByteBudget* budget, int64_t bytes)
    : budget_(budget), bytes_(bytes) {}

ByteBudget::Reservation::Reservation(Reservation&& other) noexcept
    : budget_(std::exchange(other.budget_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

ByteBudget::Reservation& ByteBudget::Reservation::operator=(
    Reservation&& other) noexcept {
  if (this != &other) {
    Release();
    budget_ = std::exchange(other.budget_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
  }
  return *this;
}

ByteBudget::Reservation::~Reservation() { Release(); }

void ByteBudget::Reservation::Release() {
  if (budget_ == nullptr) return;
  budget_->taken_.Refund(bytes_);
  budget_ = nullptr;
  bytes_ = 0;
}

ByteBudget::ByteBudget(std::string name, int64_t limit_bytes)
    : taken_(std::move(name), limit_bytes) {}

absl::StatusOr<ByteBudget::Reservation> ByteBudget::Reserve(int64_t bytes) {
  absl::Status charged = taken_.Charge(bytes);
  if (!charged.ok()) return charged;
  return Reservation(this, bytes);
}

}  // namespace backboned
