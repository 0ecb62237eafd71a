#include "client/cpp/tensors.h"

#include <new>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace backboned::client {
namespace {

constexpr std::align_val_t kAlignment{64};

int64_t RoundUp(int64_t bytes) { return (bytes + 63) & ~int64_t{63}; }

}  // namespace

void Tensors::Free::operator()(std::byte* block) const {
  operator delete(block, kAlignment);
}

absl::StatusOr<Tensors> Tensors::Allocate(
    const std::vector<int64_t>& sizes_bytes, int64_t max_bytes) {
  int64_t room = max_bytes;
  int64_t total = 0;  // With the gaps between tensors.
  for (const int64_t bytes : sizes_bytes) {
    if (bytes > room) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "the answer has more than the accepted ", max_bytes, " bytes"));
    }
    room -= bytes;
    total += RoundUp(bytes);
  }
  void* block = operator new(static_cast<size_t>(total), kAlignment,
                             std::nothrow);
  if (block == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for the answer's ", total, " bytes"));
  }
  Tensors tensors;
  tensors.block_.reset(static_cast<std::byte*>(block));
  std::byte* next = tensors.block_.get();
  for (const int64_t bytes : sizes_bytes) {
    tensors.spans_.emplace_back(next, static_cast<size_t>(bytes));
    next += RoundUp(bytes);
  }
  return tensors;
}

}  // namespace backboned::client
