// Provides the memory of tensors and receive buffers.

#ifndef BACKBONED_SERVER_MEMORY_MEMORY_ROOM_H_
#define BACKBONED_SERVER_MEMORY_MEMORY_ROOM_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/limits/memory_account.h"

namespace backboned {

// Hands out blocks of memory, keeps freed blocks for the next use, and counts
// the memory in use, in all and by account.
//
// A fresh buffer of 45 MB costs more in page faults than its copy does, so
// freed blocks over 4 KiB are pooled by size: eight sizes to each doubling, at
// most an eighth unused. Over the pool's cap, the blocks that rested longest go
// back to the system. Blocks of 1 MiB and more are mappings of their own, so
// that this really frees their memory; smaller ones come from malloc.
//
// Keeps two figures: an account is charged the requested bytes, the room the
// bytes that a block takes, with its header and rounding.
//
// Thread-safe. Must outlive its blocks.
class MemoryRoom {
 public:
  struct Options {
    // The cap on bytes that rest in the pool.
    int64_t max_pooled_bytes = int64_t{1} << 30;
    // The cap on bytes in use; errors call it `max-memory-bytes`. Blocks that
    // rest in the pool give way to it.
    int64_t limit_bytes = kUnlimitedBytes;
  };

  explicit MemoryRoom(const Options& options);

  // All blocks must have been freed.
  ~MemoryRoom();

  MemoryRoom(const MemoryRoom&) = delete;
  MemoryRoom& operator=(const MemoryRoom&) = delete;

  // Returns `bytes` of uninitialised memory, aligned to 64 bytes, charged to
  // this thread's account (see ScopedAccount). Null for 0 bytes.
  //
  // Throws OutOfMemoryBudget over the account's or the room's limit, before
  // anything is allocated; std::bad_alloc if the system has no more memory,
  // even after the pool was given back.
  void* Allocate(size_t bytes);

  // Takes back a block of Allocate, of any room, or null.
  static void Free(void* data);

  // Counts `bytes` that were allocated elsewhere as in use, and charges this
  // thread's account, until the returned object is gone.
  //
  // Throws OutOfMemoryBudget as Allocate does.
  std::shared_ptr<const void> Count(size_t bytes);

  // Pins memory for a GPU's copies, which are faster then. It cannot be swapped
  // out, and pinning takes long.
  struct Pinning {
    // Pins that many bytes at an address, and returns whether it could. Neither
    // function throws.
    std::function<bool(void*, size_t)> pin;
    // Undoes it.
    std::function<void(void*)> unpin;
    // The cap on pinned bytes.
    int64_t max_bytes = 0;
  };

  // From now on pins each new block of 1 MiB and more, within the cap, until it
  // goes back to the system. Call this once, before other threads allocate.
  void PinBlocks(Pinning pinning) { pinning_ = std::move(pinning); }

  // The bytes of blocks that are pinned.
  int64_t pinned_bytes() const;

  // Replaces the limit on bytes in use. Memory in use stays.
  void SetLimit(int64_t limit_bytes) { in_use_.SetLimit(limit_bytes); }

  // Gives memory back to the system, longest rested first, until at most
  // `bytes` rest in the pool.
  void TrimTo(int64_t bytes);

  // Gives as many bytes as rested in the pool ever since the last call back to
  // the system, the longest rested first.
  void TrimUnused();

  // The bytes that the blocks in use take.
  int64_t allocated_bytes() const { return in_use_.live_bytes(); }

  // The highest value of `allocated_bytes` so far.
  int64_t peak_bytes() const { return in_use_.peak_bytes(); }

  // The bytes that rest in the pool.
  int64_t pooled_bytes() const;

 private:
  struct Block;

  // A place in a circular list; a lone one is its own neighbour.
  struct Link {
    Link() = default;
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;
    void InsertAfter(Link& place);
    void Remove();

    Link* previous = this;
    Link* next = this;
  };
  // A resting block is in two lists: that of its size, and that of all blocks.
  struct SizeLink : Link {};
  struct AgeLink : Link {};

  Block* Take(size_t capacity);
  Block* TakePooled(size_t capacity);
  void Return(Block* block);
  Block* EvictDownTo(int64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReleaseDownTo(int64_t bytes);
  void TrimHeapOver(int64_t bytes);
  static void Release(Block* chain);
  void Pin(void* memory, size_t bytes);
  void Unpin(void* memory, size_t bytes);

  MemoryAccount in_use_;
  const int64_t max_pooled_bytes_;
  Pinning pinning_;

  mutable absl::Mutex mutex_;
  int64_t pooled_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  // The lowest value of `pooled_bytes_` since the last TrimUnused.
  int64_t unused_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  // The bytes of blocks that went from the pool to malloc, which keeps them,
  // since the heap was last trimmed.
  int64_t heap_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  // By size; the last block in is the first out, while it is in the cache.
  std::vector<SizeLink> bins_ ABSL_GUARDED_BY(mutex_);
  AgeLink oldest_ ABSL_GUARDED_BY(mutex_);  // The ring's begin.
  std::unordered_set<void*> pinned_ ABSL_GUARDED_BY(mutex_);
  int64_t pinned_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_MEMORY_MEMORY_ROOM_H_
