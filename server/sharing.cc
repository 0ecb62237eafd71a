#include "server/sharing.h"

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <unordered_map>
#include <unordered_set>

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
    // An optimizer's tensors are shared with it.
    const bool has_own_optimizer = states[i]->optimizer.use_count() <= 1;
    for (const at::Tensor& tensor : TensorsOf(*states[i])) {
      const c10::StorageImpl* memory = tensor.storage().unsafeGetStorageImpl();
      // Held by one state, and by its tensor in the list just made.
      if (has_own_optimizer && tensor.use_count() == 2 &&
          tensor.storage().use_count() == 1) {
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

int64_t TapeStateBytes(std::span<const std::shared_ptr<const Tape>> tapes,
                       std::span<const StatePtr> states) {
  if (tapes.empty()) return 0;
  std::unordered_set<const c10::StorageImpl*> known;
  for (const StatePtr& state : states) {
    for (const at::Tensor& tensor : TensorsOf(*state)) {
      known.insert(tensor.storage().unsafeGetStorageImpl());
    }
  }
  int64_t bytes = 0;
  for (const auto& tape : tapes) {
    if (tape->replay == nullptr) continue;
    for (const at::Tensor& tensor : tape->replay->StateTensors()) {
      if (known.insert(tensor.storage().unsafeGetStorageImpl()).second) {
        bytes += static_cast<int64_t>(tensor.nbytes());
      }
    }
  }
  return bytes;
}

}  // namespace backboned
