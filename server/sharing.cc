#include "server/sharing.h"

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <unordered_map>

namespace backboned {
namespace {

// A state's tensor that others may hold.
struct Holding {
  size_t state = 0;
  const c10::StorageImpl* memory = nullptr;
  int64_t bytes = 0;
};

}  // namespace

std::vector<int64_t> SharedBytes(std::span<const StatePtr> states) {
  std::vector<Holding> holdings;
  // Who holds it first, or nobody in particular.
  constexpr size_t kSeveral = SIZE_MAX;
  std::unordered_map<const c10::StorageImpl*, size_t> holders;
  for (size_t i = 0; i < states.size(); ++i) {
    for (const at::Tensor& tensor : TensorsOf(*states[i])) {
      const c10::StorageImpl* memory = tensor.storage().unsafeGetStorageImpl();
      // Held by one state, and by its tensor in the list just made.
      if (tensor.use_count() == 2 && tensor.storage().use_count() == 1) {
        continue;
      }
      holdings.push_back({.state = i,
                          .memory = memory,
                          .bytes = static_cast<int64_t>(tensor.nbytes())});
      const auto [holder, first] = holders.emplace(memory, i);
      if (!first && holder->second != i) holder->second = kSeveral;
    }
  }
  std::vector<int64_t> shared(states.size());
  for (const Holding& holding : holdings) {
    if (holders.at(holding.memory) == kSeveral) {
      shared[holding.state] += holding.bytes;
    }
  }
  return shared;
}

}  // namespace backboned
