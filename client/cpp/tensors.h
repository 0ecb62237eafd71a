// Holds the tensors of an answer.

#ifndef BACKBONED_CLIENT_CPP_TENSORS_H_
#define BACKBONED_CLIENT_CPP_TENSORS_H_

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace backboned::client {

// Owns the memory of an answer's tensors, in the answer's order.
class Tensors {
 public:
  // Holds no tensors.
  Tensors() = default;

  // Allocates uninitialised memory for a tensor of each of these sizes.
  //
  // Returns kResourceExhausted if the sum exceeds `max_bytes`, or there is no
  // memory.
  static absl::StatusOr<Tensors> Allocate(
      const std::vector<int64_t>& sizes_bytes, int64_t max_bytes);

  // Returns the number of tensors.
  size_t size() const { return spans_.size(); }

  // Returns the bytes of tensor `index`, aligned to 64 bytes.
  std::span<std::byte> operator[](size_t index) const { return spans_[index]; }

  // Returns the elements of tensor `index`, whose element type must be `T`.
  template <typename T>
  std::span<T> As(size_t index) const {
    assert(spans_[index].size() % sizeof(T) == 0);
    return {reinterpret_cast<T*>(spans_[index].data()),
            spans_[index].size() / sizeof(T)};
  }

  const std::vector<std::span<std::byte>>& spans() const { return spans_; }

 private:
  struct Free {
    void operator()(std::byte* block) const;
  };

  std::unique_ptr<std::byte, Free> block_;
  std::vector<std::span<std::byte>> spans_;
};

// An answer: its header, and the tensors that the header announces.
template <typename Result>
struct Received {
  Result result;
  Tensors tensors;
};

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_TENSORS_H_
