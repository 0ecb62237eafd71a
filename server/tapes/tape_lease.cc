// A place for a tape, and the use of several.

#include <utility>

#include "server/tapes/tape_store.h"

namespace backboned {

TapeSlot& TapeSlot::operator=(TapeSlot&& other) noexcept {
  std::swap(store_, other.store_);
  std::swap(payer_, other.payer_);
  return *this;
}

TapeSlot::~TapeSlot() {
  if (store_ != nullptr) store_->FreeSlot(payer_);
}

TapeLease::TapeLease(TapeLease&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)),
      tapes_(std::exchange(other.tapes_, {})) {}

TapeLease& TapeLease::operator=(TapeLease&& other) noexcept {
  std::swap(store_, other.store_);
  std::swap(tapes_, other.tapes_);
  return *this;
}

TapeLease::~TapeLease() { Finish(/*consume=*/false); }

void TapeLease::Consume() { Finish(/*consume=*/true); }

void TapeLease::Finish(bool consume) {
  if (store_ == nullptr) return;
  std::exchange(store_, nullptr)->EndLease(std::exchange(tapes_, {}), consume);
}

}  // namespace backboned
