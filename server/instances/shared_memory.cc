#include "server/instances/shared_memory.h"

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <unordered_map>

namespace backboned {
namespace {

const c10::StorageImpl* MemoryOf(const at::Tensor& tensor) {
  return tensor.storage().unsafeGetStorageImpl();
}

// Returns whether something besides `state` may hold its `tensor`. An
// optimizer's tensors are shared with the optimizer.
bool MayBeShared(const State& state, const at::Tensor& tensor) {
  return state.optimizer.use_count() > 1 || tensor.use_count() > 1 ||
         tensor.storage().use_count() > 1;
}

// A state's tensor that others may hold.
struct Holding {
  size_t state = 0;
  const c10::StorageImpl* memory = nullptr;
  int64_t bytes = 0;
};

}  // namespace

std::vector<int64_t> SharedBytes(std::span<const StatePtr> states,
                                 std::span<const StatePtr> others) {
  std::vector<Holding> holdings;
  // The index of the first holder, or this if there are several.
  constexpr size_t kSeveral = SIZE_MAX;
  std::unordered_map<const c10::StorageImpl*, size_t> holders;
  size_t held_by_one = 0;
  for (size_t i = 0; i < states.size(); ++i) {
    ForEachTensor(*states[i], [&](const at::Tensor& tensor) {
      if (!MayBeShared(*states[i], tensor)) return;
      holdings.push_back({.state = i,
                          .memory = MemoryOf(tensor),
                          .bytes = static_cast<int64_t>(tensor.nbytes())});
      const auto [holder, first] = holders.emplace(MemoryOf(tensor), i);
      if (first) ++held_by_one;
      if (first || holder->second == i || holder->second == kSeveral) return;
      holder->second = kSeveral;
      --held_by_one;
    });
  }
  for (const StatePtr& other : others) {
    if (held_by_one == 0) break;
    ForEachTensor(*other, [&](const at::Tensor& tensor) {
      if (!MayBeShared(*other, tensor)) return;
      const auto holder = holders.find(MemoryOf(tensor));
      if (holder == holders.end() || holder->second == kSeveral) return;
      holder->second = kSeveral;
      --held_by_one;
    });
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
  std::unordered_map<const c10::StorageImpl*, int64_t> bytes_of;
  for (const auto& tape : tapes) {
    if (tape->replay == nullptr) continue;
    tape->replay->ForEachStateTensor([&](const at::Tensor& tensor) {
      bytes_of.emplace(MemoryOf(tensor), static_cast<int64_t>(tensor.nbytes()));
    });
  }
  for (const StatePtr& state : states) {
    if (bytes_of.empty()) break;
    ForEachTensor(*state, [&](const at::Tensor& tensor) {
      if (MayBeShared(*state, tensor)) bytes_of.erase(MemoryOf(tensor));
    });
  }
  int64_t bytes = 0;
  for (const auto& [memory, size] : bytes_of) bytes += size;
  return bytes;
}

}  // namespace backboned
