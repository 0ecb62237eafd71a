#include "proto/wire/tensor_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace backboned::wire {

TensorReader::TensorReader(std::vector<std::span<std::byte>> destinations)
    : destinations_(std::move(destinations)) {
  for (const auto& destination : destinations_) {
    expected_bytes_ += std::ssize(destination);
  }
}

absl::Status TensorReader::Accept(const Message& message) {
  if (!message.has_chunk()) return absl::OkStatus();
  if (message.chunk_offset() != received_bytes_) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk starts at byte ", message.chunk_offset(),
                     ", expected byte ", received_bytes_));
  }
  const int64_t end = received_bytes_ + message.chunk_bytes();
  if (end > expected_bytes_) {
    return absl::InvalidArgumentError(absl::StrCat("chunk ends at byte ", end,
                                                   ", the tensors end at byte ",
                                                   expected_bytes_));
  }
  for (const auto part : message.chunk_parts()) Place(part);
  received_bytes_ = end;
  return absl::OkStatus();
}

void TensorReader::Place(std::span<const std::byte> part) {
  while (!part.empty()) {
    const auto room = destinations_[current_].subspan(current_filled_);
    const size_t count = std::min(room.size(), part.size());
    if (count > 0) std::memcpy(room.data(), part.data(), count);
    part = part.subspan(count);
    current_filled_ += count;
    if (current_filled_ == destinations_[current_].size()) {
      ++current_;
      current_filled_ = 0;
    }
  }
}

absl::Status TensorReader::Finish() const {
  if (received_bytes_ == expected_bytes_) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("stream ended at byte ",
                                                 received_bytes_, ", expected ",
                                                 expected_bytes_, " bytes"));
}

}  // namespace backboned::wire
