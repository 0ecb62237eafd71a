#include "server/memory/memory_room.h"

#include <malloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>

#include "absl/base/config.h"

#ifdef ABSL_HAVE_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(data, bytes) static_cast<void>(0)
#define ASAN_UNPOISON_MEMORY_REGION(data, bytes) static_cast<void>(0)
#endif

namespace backboned {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kPageBytes = 4096;
constexpr size_t kHugePageBytes = size_t{2} << 20;
constexpr size_t kMaxSmallBytes = 4096;  // Up to here from malloc's pools.
constexpr size_t kMinMappedBytes = size_t{1} << 20;  // From here mappings.
constexpr int kMaxLog2 = 46;  // The most of a process with 47 address bits.
constexpr int kMinLog2 = std::bit_width(kMaxSmallBytes) - 1;
constexpr size_t kBinsPerDoubling = 8;
// Trimming the heap takes milliseconds, so an allocation does it only if this
// much can be freed, which is as much as main lets malloc keep.
constexpr int64_t kMaxHeapBytes = int64_t{64} << 20;
constexpr size_t kBinCount = kBinsPerDoubling * (kMaxLog2 - kMinLog2);

constexpr size_t RoundUp(size_t bytes, size_t multiple) {
  return (bytes + multiple - 1) / multiple * multiple;
}

// Returns k of the doubling (2^k, 2^(k+1)] that `bytes` is in.
int Log2(size_t bytes) {
  return static_cast<int>(std::bit_width(bytes - 1)) - 1;
}

// Returns the bytes that a block for `bytes` can hold.
size_t Capacity(size_t bytes) {
  if (bytes <= kMaxSmallBytes) return RoundUp(bytes, kAlignment);
  return RoundUp(bytes, (size_t{1} << Log2(bytes)) / kBinsPerDoubling);
}

// Returns the list of a pooled block's size.
size_t BinOf(size_t capacity) {
  const int log2 = Log2(capacity);
  const size_t step = (size_t{1} << log2) / kBinsPerDoubling;
  return static_cast<size_t>(log2 - kMinLog2) * kBinsPerDoubling +
         (capacity - 1) / step - kBinsPerDoubling;
}

// Returns the system's bytes for a block of `capacity`.
int64_t Footprint(size_t capacity) {
  const size_t bytes = capacity + kAlignment;
  return static_cast<int64_t>(
      capacity < kMinMappedBytes ? bytes : RoundUp(bytes, kPageBytes));
}

// Returns null if the system has no more memory.
std::byte* Map(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<std::byte*>(memory);
}

// Maps memory that begins with a huge page and asks for as many as fit: a
// network's parameters then need few entries of the processor's page table
// cache. Returns null if the system has no more memory.
std::byte* MapHuge(size_t bytes) {
  std::byte* memory = Map(bytes + kHugePageBytes);
  if (memory == nullptr) return nullptr;
  const size_t before = -std::bit_cast<uintptr_t>(memory) % kHugePageBytes;
  if (before > 0) munmap(memory, before);
  memory += before;
  const size_t after = kHugePageBytes - before;
  if (after > 0) munmap(memory + bytes, after);
  // Only advice: small pages do as well.
  madvise(memory, bytes / kHugePageBytes * kHugePageBytes, MADV_HUGEPAGE);
  return memory;
}

// Returns null if the system has no more memory.
void* FromSystem(size_t capacity) {
  const auto bytes = static_cast<size_t>(Footprint(capacity));
  if (capacity < kMinMappedBytes) return std::aligned_alloc(kAlignment, bytes);
  return bytes < kHugePageBytes ? Map(bytes) : MapHuge(bytes);
}

// Bytes charged to an account until this object is gone, or for good by `Keep`.
class Charge {
 public:
  // Throws OutOfMemoryBudget. Null: no account.
  Charge(MemoryAccount* account, size_t bytes)
      : account_(account), bytes_(static_cast<int64_t>(bytes)) {
    if (account_ == nullptr) return;
    absl::Status charged = account_->Charge(bytes_);
    if (!charged.ok()) throw OutOfMemoryBudget(std::move(charged));
  }
  ~Charge() {
    if (account_ != nullptr) account_->Refund(bytes_);
  }
  Charge(const Charge&) = delete;
  Charge& operator=(const Charge&) = delete;

  void Keep() { account_ = nullptr; }

 private:
  MemoryAccount* account_;
  const int64_t bytes_;
};

}  // namespace

// The header before a user's memory. In use, its links are unused.
struct alignas(kAlignment) MemoryRoom::Block : SizeLink, AgeLink {
  MemoryRoom* room;
  size_t bytes;  // As the last user asked for.
  std::shared_ptr<MemoryAccount> account;

  Block(MemoryRoom* its_room, size_t for_bytes)
      : room(its_room), bytes(for_bytes) {}

  static Block* Of(void* data) { return static_cast<Block*>(data) - 1; }
  static Block* Of(Link* link) {
    return static_cast<Block*>(static_cast<SizeLink*>(link));
  }
  static Block* OfAge(Link* link) {
    return static_cast<Block*>(static_cast<AgeLink*>(link));
  }
  void* data() { return this + 1; }
  size_t capacity() const { return Capacity(bytes); }
};

void MemoryRoom::Link::InsertAfter(Link& place) {
  previous = &place;
  next = std::exchange(place.next, this);
  next->previous = this;
}

void MemoryRoom::Link::Remove() {
  previous->next = next;
  next->previous = previous;
  previous = next = this;
}

MemoryRoom::MemoryRoom(const Options& options)
    : in_use_("max-memory-bytes", options.limit_bytes),
      max_pooled_bytes_(options.max_pooled_bytes),
      bins_(kBinCount) {
  static_assert(sizeof(Block) == kAlignment);
}

MemoryRoom::~MemoryRoom() {
  assert(allocated_bytes() == 0);
  TrimTo(0);
}

void* MemoryRoom::Allocate(size_t bytes) {
  if (bytes == 0) return nullptr;
  if (bytes > size_t{1} << kMaxLog2) throw std::bad_alloc();
  const size_t capacity = Capacity(bytes);
  std::shared_ptr<MemoryAccount> account = ScopedAccount::Current();
  Charge charge(account.get(), bytes);
  Charge room_charge(&in_use_, static_cast<size_t>(Footprint(capacity)));
  Block* block = Take(capacity);
  charge.Keep();
  room_charge.Keep();
  block->bytes = bytes;
  block->account = std::move(account);
  return block->data();
}

void MemoryRoom::Free(void* data) {
  if (data == nullptr) return;
  Block* block = Block::Of(data);
  if (block->account != nullptr) {
    block->account->Refund(static_cast<int64_t>(block->bytes));
    block->account.reset();
  }
  block->room->Return(block);
}

std::shared_ptr<const void> MemoryRoom::Count(size_t bytes) {
  // Bytes of two accounts, the first of which may be null.
  struct Counted {
    std::shared_ptr<MemoryAccount> account;
    MemoryAccount& in_use;
    int64_t bytes;
    ~Counted() {
      if (account != nullptr) account->Refund(bytes);
      in_use.Refund(bytes);
    }
  };
  std::shared_ptr<MemoryAccount> account = ScopedAccount::Current();
  Charge charge(account.get(), bytes);
  Charge room_charge(&in_use_, bytes);
  auto counted = std::make_shared<const Counted>(std::move(account), in_use_,
                                                 static_cast<int64_t>(bytes));
  charge.Keep();
  room_charge.Keep();
  return counted;
}

void MemoryRoom::TrimTo(int64_t bytes) {
  ReleaseDownTo(bytes);
  TrimHeapOver(0);
}

void MemoryRoom::ReleaseDownTo(int64_t bytes) {
  Block* evicted = nullptr;
  {
    absl::MutexLock lock(&mutex_);
    evicted = EvictDownTo(bytes);
  }
  Release(evicted);
}

// Makes malloc give its free memory back, if that is more than `bytes`.
void MemoryRoom::TrimHeapOver(int64_t bytes) {
  {
    absl::MutexLock lock(&mutex_);
    if (heap_bytes_ <= bytes) return;
    heap_bytes_ = 0;
  }
  malloc_trim(0);
}

void MemoryRoom::TrimUnused() {
  int64_t rest = 0;
  {
    absl::MutexLock lock(&mutex_);
    rest = pooled_bytes_ - std::min(unused_bytes_, pooled_bytes_);
    unused_bytes_ = rest;
  }
  TrimTo(rest);
}

int64_t MemoryRoom::pooled_bytes() const {
  absl::MutexLock lock(&mutex_);
  return pooled_bytes_;
}

// Returns a block of `capacity`, whose bytes are already charged.
MemoryRoom::Block* MemoryRoom::Take(size_t capacity) {
  if (Block* pooled = TakePooled(capacity)) return pooled;
  const int64_t limit = in_use_.limit_bytes();
  if (limit != kUnlimitedBytes) {
    ReleaseDownTo(std::max(limit - allocated_bytes(), int64_t{0}));
    TrimHeapOver(kMaxHeapBytes);
  }
  void* memory = FromSystem(capacity);
  if (memory == nullptr) {
    TrimTo(0);
    memory = FromSystem(capacity);
  }
  if (memory == nullptr) throw std::bad_alloc();
  if (capacity >= kMinMappedBytes && pinning_.max_bytes > 0) {
    Pin(memory, static_cast<size_t>(Footprint(capacity)));
  }
  return std::construct_at(static_cast<Block*>(memory), this, capacity);
}

// Pins a mapping if there is room for it. One that is not serves as well.
void MemoryRoom::Pin(void* memory, size_t bytes) {
  const auto count = static_cast<int64_t>(bytes);
  {
    absl::MutexLock lock(&mutex_);
    if (pinned_bytes_ + count > pinning_.max_bytes) return;
    pinned_.insert(memory);
    pinned_bytes_ += count;
  }
  if (pinning_.pin(memory, bytes)) return;
  absl::MutexLock lock(&mutex_);
  pinned_.erase(memory);
  pinned_bytes_ -= count;
}

void MemoryRoom::Unpin(void* memory, size_t bytes) {
  {
    absl::MutexLock lock(&mutex_);
    if (pinned_.erase(memory) == 0) return;
    pinned_bytes_ -= static_cast<int64_t>(bytes);
  }
  pinning_.unpin(memory);
}

int64_t MemoryRoom::pinned_bytes() const {
  absl::MutexLock lock(&mutex_);
  return pinned_bytes_;
}

MemoryRoom::Block* MemoryRoom::TakePooled(size_t capacity) {
  if (capacity <= kMaxSmallBytes) return nullptr;
  absl::MutexLock lock(&mutex_);
  Link& bin = bins_[BinOf(capacity)];
  if (bin.next == &bin) return nullptr;
  Block* block = Block::Of(bin.next);
  block->SizeLink::Remove();
  block->AgeLink::Remove();
  pooled_bytes_ -= Footprint(capacity);
  unused_bytes_ = std::min(unused_bytes_, pooled_bytes_);
  ASAN_UNPOISON_MEMORY_REGION(block->data(), capacity);
  return block;
}

void MemoryRoom::Return(Block* block) {
  const size_t capacity = block->capacity();
  const int64_t footprint = Footprint(capacity);
  in_use_.Refund(footprint);
  block->SizeLink::next = nullptr;
  Block* evicted = block;
  if (capacity > kMaxSmallBytes) {
    absl::MutexLock lock(&mutex_);
    if (footprint <= max_pooled_bytes_) {
      evicted = EvictDownTo(max_pooled_bytes_ - footprint);
      block->SizeLink::InsertAfter(bins_[BinOf(capacity)]);
      block->AgeLink::InsertAfter(*oldest_.previous);
      pooled_bytes_ += footprint;
      ASAN_POISON_MEMORY_REGION(block->data(), capacity);
    }
  }
  Release(evicted);
}

// Takes the longest rested blocks out of the pool; returns them as a chain by
// size link that ends with null.
MemoryRoom::Block* MemoryRoom::EvictDownTo(int64_t bytes) {
  Block* chain = nullptr;
  while (pooled_bytes_ > bytes && oldest_.next != &oldest_) {
    Block* block = Block::OfAge(oldest_.next);
    const size_t capacity = block->capacity();
    pooled_bytes_ -= Footprint(capacity);
    if (capacity < kMinMappedBytes) heap_bytes_ += Footprint(capacity);
    unused_bytes_ = std::min(unused_bytes_, pooled_bytes_);
    block->AgeLink::Remove();
    block->SizeLink::Remove();
    block->SizeLink::next = static_cast<SizeLink*>(chain);
    chain = block;
  }
  return chain;
}

// Gives a chain of blocks to the system.
void MemoryRoom::Release(Block* chain) {
  while (chain != nullptr) {
    Block* block = chain;
    Link* next = block->SizeLink::next;
    chain = next == nullptr ? nullptr : Block::Of(next);
    const size_t capacity = block->capacity();
    ASAN_UNPOISON_MEMORY_REGION(block->data(), capacity);
    MemoryRoom& room = *block->room;
    std::destroy_at(block);
    if (capacity < kMinMappedBytes) {
      std::free(block);
      continue;
    }
    const auto bytes = static_cast<size_t>(Footprint(capacity));
    room.Unpin(block, bytes);
    munmap(block, bytes);
  }
}

}  // namespace backboned
