#include "server/memory/memory_room.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <memory>
#include <new>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/errors.h"
#include "tests/testing/status_matchers.h"

namespace {

std::atomic<int> malloc_trims = 0;

}  // namespace

// Replaces the C library's.
extern "C" int malloc_trim(size_t) {
  ++malloc_trims;
  return 0;
}

namespace backboned {
namespace {

using ::testing::HasSubstr;

constexpr size_t kMiB = size_t{1} << 20;

struct Deleter {
  void operator()(std::byte* data) const { MemoryRoom::Free(data); }
};

// A block of a room that frees itself.
using Buffer = std::unique_ptr<std::byte[], Deleter>;

Buffer Allocate(MemoryRoom& room, size_t bytes) {
  return Buffer(static_cast<std::byte*>(room.Allocate(bytes)));
}

int64_t ResidentBytes() {
  int64_t virtual_pages = 0;
  int64_t resident_pages = 0;
  std::ifstream("/proc/self/statm") >> virtual_pages >> resident_pages;
  return resident_pages * sysconf(_SC_PAGESIZE);
}

// Returns the error of an allocation over a limit.
absl::Status Refusal(MemoryRoom& room, size_t bytes) {
  try {
    Allocate(room, bytes);
  } catch (const OutOfMemoryBudget& error) {
    return error.status();
  }
  return absl::OkStatus();
}

class MemoryRoomTest : public ::testing::Test {
 protected:
  MemoryRoom room_{{.max_pooled_bytes = 64 * kMiB}};
};

TEST_F(MemoryRoomTest, BlocksAreAlignedAndWritable) {
  for (size_t bytes = 1; bytes < 8 * kMiB; bytes += bytes / 3 + 1) {
    const Buffer buffer = Allocate(room_, bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.get()) % 64, 0u) << bytes;
    std::memset(buffer.get(), 0x5a, bytes);
  }
}

TEST_F(MemoryRoomTest, NoBytesAreNull) {
  EXPECT_EQ(room_.Allocate(0), nullptr);
  MemoryRoom::Free(nullptr);
  EXPECT_EQ(room_.allocated_bytes(), 0);
}

TEST_F(MemoryRoomTest, WastesAtMostAnEighth) {
  for (size_t bytes = 4097; bytes < 64 * kMiB; bytes += bytes / 50) {
    const Buffer buffer = Allocate(room_, bytes);
    const size_t overhead = 64 + (bytes >= kMiB * 8 / 9 ? 4096 : 0);
    EXPECT_LE(room_.allocated_bytes(), bytes + bytes / 8 + overhead) << bytes;
  }
}

TEST_F(MemoryRoomTest, PowersOfTwoWasteNothingButAPage) {
  const Buffer buffer = Allocate(room_, 8 * kMiB);
  EXPECT_EQ(room_.allocated_bytes(), static_cast<int64_t>(8 * kMiB + 4096));
}

TEST_F(MemoryRoomTest, ReusesBlocksOfTheSameSize) {
  for (size_t bytes : {size_t{5000}, 100'000 * size_t{1}, 3 * kMiB}) {
    const void* first = Allocate(room_, bytes).get();
    EXPECT_GT(room_.pooled_bytes(), static_cast<int64_t>(bytes));
    EXPECT_EQ(Allocate(room_, bytes - 1).get(), first) << bytes;
    room_.TrimTo(0);
  }
}

TEST_F(MemoryRoomTest, DoesNotPoolSmallBlocks) {
  Allocate(room_, 4096);
  EXPECT_EQ(room_.pooled_bytes(), 0);
}

TEST_F(MemoryRoomTest, PoolKeepsItsCap) {
  std::vector<Buffer> buffers;
  buffers.reserve(10);
  for (int i = 0; i < 10; ++i) {
    buffers.push_back(Allocate(room_, 10 * kMiB));
  }
  buffers.clear();
  EXPECT_LE(room_.pooled_bytes(), static_cast<int64_t>(64 * kMiB));
  EXPECT_GT(room_.pooled_bytes(), static_cast<int64_t>(50 * kMiB));
  MemoryRoom small({.max_pooled_bytes = kMiB});
  Allocate(small, 2 * kMiB);
  EXPECT_EQ(small.pooled_bytes(), 0);
}

TEST_F(MemoryRoomTest, PoolGivesUpTheLongestRested) {
  Allocate(room_, 30 * kMiB);
  const void* kept = Allocate(room_, 20 * kMiB).get();
  Allocate(room_, 40 * kMiB);  // 30 MiB must go.
  const int64_t pooled = room_.pooled_bytes();
  EXPECT_EQ(Allocate(room_, 20 * kMiB).get(), kept);
  EXPECT_EQ(room_.pooled_bytes(), pooled);
  EXPECT_LT(pooled, static_cast<int64_t>(61 * kMiB));
}

TEST_F(MemoryRoomTest, TrimGivesMemoryBackToTheSystem) {
  constexpr size_t kBytes = 48 * kMiB;
  {
    const Buffer buffer = Allocate(room_, kBytes);
    std::memset(buffer.get(), 1, kBytes);
  }
  const int64_t before = ResidentBytes();
  room_.TrimTo(0);
  EXPECT_EQ(room_.pooled_bytes(), 0);
  EXPECT_GT(before - ResidentBytes(), static_cast<int64_t>(40 * kMiB));
}

TEST_F(MemoryRoomTest, TrimStopsAtTheBytesAskedFor) {
  Allocate(room_, 20 * kMiB);
  Allocate(room_, 8 * kMiB);
  room_.TrimTo(10 * kMiB);
  EXPECT_GT(room_.pooled_bytes(), static_cast<int64_t>(8 * kMiB));
  EXPECT_LT(room_.pooled_bytes(), static_cast<int64_t>(9 * kMiB));
}

TEST(PinnedBlocksTest, ArePinnedUntilTheyGoBackToTheSystem) {
  std::vector<void*> pinned;
  MemoryRoom room({});
  room.PinBlocks({.pin =
                      [&](void* memory, size_t bytes) {
                        EXPECT_GE(bytes, kMiB);
                        pinned.push_back(memory);
                        return true;
                      },
                  .unpin = [&](void* memory) { std::erase(pinned, memory); },
                  .max_bytes = int64_t{4} * kMiB});
  {
    const Buffer small = Allocate(room, kMiB / 2);
    EXPECT_EQ(room.pinned_bytes(), 0);
    const Buffer first = Allocate(room, kMiB);
    const Buffer second = Allocate(room, 2 * kMiB);
    EXPECT_EQ(pinned.size(), 2);
    const Buffer too_much = Allocate(room, kMiB);
    EXPECT_EQ(pinned.size(), 2);
  }
  const int64_t bytes = room.pinned_bytes();
  EXPECT_GT(bytes, int64_t{3} * kMiB);
  const Buffer again = Allocate(room, 2 * kMiB);  // Of the pool.
  EXPECT_EQ(room.pinned_bytes(), bytes);
  room.TrimTo(0);
  EXPECT_EQ(pinned.size(), 1);
}

TEST(PinnedBlocksTest, ServeAsWellIfTheyCannotBePinned) {
  MemoryRoom room({});
  room.PinBlocks({.pin = [](void*, size_t) { return false; },
                  .unpin = [](void*) { FAIL(); },
                  .max_bytes = int64_t{8} * kMiB});
  Allocate(room, kMiB)[kMiB - 1] = std::byte{1};
  EXPECT_EQ(room.pinned_bytes(), 0);
  room.TrimTo(0);
}

TEST_F(MemoryRoomTest, KnowsItsPeak) {
  Allocate(room_, 2 * kMiB);
  Allocate(room_, kMiB);
  EXPECT_EQ(room_.allocated_bytes(), 0);
  EXPECT_EQ(room_.peak_bytes(), static_cast<int64_t>(2 * kMiB + 4096));
}

TEST_F(MemoryRoomTest, AccountPaysExactlyWhatWasAskedFor) {
  const auto account = std::make_shared<MemoryAccount>("max-tape-bytes");
  Buffer small;
  Buffer large;
  {
    const ScopedAccount scope(account);
    small = Allocate(room_, 17);
    large = Allocate(room_, 1'234'567);
  }
  const Buffer unpaid = Allocate(room_, 1000);
  EXPECT_EQ(account->live_bytes(), 17 + 1'234'567);
  std::thread([&] { large.reset(); }).join();
  EXPECT_EQ(account->live_bytes(), 17);
  EXPECT_EQ(account->peak_bytes(), 17 + 1'234'567);
  small.reset();
  EXPECT_EQ(account->live_bytes(), 0);
}

TEST_F(MemoryRoomTest, InnermostScopeCounts) {
  const auto outer = std::make_shared<MemoryAccount>("outer");
  const auto inner = std::make_shared<MemoryAccount>("inner");
  const ScopedAccount outer_scope(outer);
  std::vector<Buffer> buffers;
  {
    const ScopedAccount inner_scope(inner);
    buffers.push_back(Allocate(room_, 10));
    const ScopedAccount suspended(nullptr);
    buffers.push_back(Allocate(room_, 100));
  }
  buffers.push_back(Allocate(room_, 1000));
  EXPECT_EQ(inner->live_bytes(), 10);
  EXPECT_EQ(outer->live_bytes(), 1000);
}

TEST_F(MemoryRoomTest, ParentsPayToo) {
  const auto parent = std::make_shared<MemoryAccount>("parent", 1000);
  const auto child = std::make_shared<MemoryAccount>(
      MemoryAccount::Options{.name = "child", .parent = parent});
  const ScopedAccount scope(child);
  Buffer buffer = Allocate(room_, 600);
  EXPECT_EQ(parent->live_bytes(), 600);
  const absl::Status refused = Refusal(room_, 500);
  ASSERT_TRUE(LimitOf(refused).has_value());
  EXPECT_EQ(LimitOf(refused)->name, "parent");
  EXPECT_EQ(child->live_bytes(), 600);
  buffer.reset();
  EXPECT_EQ(parent->live_bytes(), 0);
}

TEST_F(MemoryRoomTest, GivesBackWhatNobodyNeededSinceTheLastTime) {
  Allocate(room_, 4 * kMiB);  // Rests in the pool from now on.
  { const Buffer used = Allocate(room_, kMiB); }
  const int64_t both = room_.pooled_bytes();
  room_.TrimUnused();
  EXPECT_EQ(room_.pooled_bytes(), both);  // Both were in use since it began.
  { const Buffer used = Allocate(room_, kMiB); }
  room_.TrimUnused();
  EXPECT_LT(room_.pooled_bytes(), static_cast<int64_t>(2 * kMiB));
  EXPECT_GT(room_.pooled_bytes(), 0);  // The used one.
  room_.TrimUnused();
  EXPECT_EQ(room_.pooled_bytes(), 0);
}

TEST_F(MemoryRoomTest, BlocksKeepTheirAccountAlive) {
  auto account = std::make_shared<MemoryAccount>("max-tape-bytes");
  const std::weak_ptr<MemoryAccount> alive = account;
  Buffer buffer;
  {
    const ScopedAccount scope(std::move(account));
    buffer = Allocate(room_, 10'000);
  }
  EXPECT_EQ(alive.lock()->live_bytes(), 10'000);
  buffer.reset();
  EXPECT_TRUE(alive.expired());
}

TEST_F(MemoryRoomTest, ThrowsOverTheAccountBeforeAllocating) {
  const auto account = std::make_shared<MemoryAccount>("max-tape-bytes", 5000);
  const ScopedAccount scope(account);
  const Buffer held = Allocate(room_, 3000);
  const int64_t before = room_.allocated_bytes();
  const absl::Status refused = Refusal(room_, 2001);
  EXPECT_THAT(refused,
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("no room for 2001 more bytes: this server "
                                 "uses 3000 of its 5000 of max-tape-bytes")));
  ASSERT_TRUE(LimitOf(refused).has_value());
  EXPECT_EQ(LimitOf(refused)->name, "max-tape-bytes");
  EXPECT_EQ(LimitOf(refused)->requested, 5001);
  EXPECT_EQ(account->live_bytes(), 3000);
  EXPECT_EQ(room_.allocated_bytes(), before);
  EXPECT_EQ(room_.peak_bytes(), before);
  EXPECT_THAT(Refusal(room_, 2000), IsOk());
}

TEST_F(MemoryRoomTest, ThrowsOverTheRoomAndRefundsTheAccount) {
  const auto account = std::make_shared<MemoryAccount>("max-tape-bytes");
  const ScopedAccount scope(account);
  room_.SetLimit(kMiB);
  const absl::Status refused = Refusal(room_, 2 * kMiB);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted,
                                HasSubstr("max-memory-bytes")));
  EXPECT_EQ(LimitOf(refused)->name, "max-memory-bytes");
  EXPECT_EQ(account->live_bytes(), 0);
  EXPECT_EQ(room_.allocated_bytes(), 0);
}

TEST_F(MemoryRoomTest, CountsWhatOthersAllocatedUntilItIsGone) {
  room_.SetLimit(2 * kMiB);
  const auto account = std::make_shared<MemoryAccount>("max-memory-bytes");
  std::shared_ptr<const void> counted;
  {
    const ScopedAccount scope(account);
    counted = room_.Count(kMiB);
  }
  EXPECT_EQ(account->live_bytes(), static_cast<int64_t>(kMiB));
  EXPECT_EQ(room_.allocated_bytes(), static_cast<int64_t>(kMiB));
  try {
    const ScopedAccount scope(account);
    room_.Count(kMiB + 1);
    ADD_FAILURE() << "passes the limit";
  } catch (const OutOfMemoryBudget& error) {
    EXPECT_THAT(error.status(), StatusIs(absl::StatusCode::kResourceExhausted,
                                         HasSubstr("of max-memory-bytes")));
  }
  EXPECT_EQ(account->live_bytes(), static_cast<int64_t>(kMiB));
  counted.reset();
  EXPECT_EQ(account->live_bytes(), 0);
  EXPECT_EQ(room_.allocated_bytes(), 0);
}

TEST_F(MemoryRoomTest, PoolGivesWayToTheLimit) {
  room_.SetLimit(40 * kMiB);
  Allocate(room_, 30 * kMiB);
  const Buffer buffer = Allocate(room_, 20 * kMiB);
  EXPECT_LE(room_.allocated_bytes() + room_.pooled_bytes(),
            static_cast<int64_t>(40 * kMiB));
}

TEST_F(MemoryRoomTest, AllocationsUnderTheLimitDoNotTrimTheHeap) {
  room_.SetLimit(8 * kMiB);
  malloc_trims = 0;
  for (int i = 0; i < 100; ++i) {  // Each makes the other give way.
    Allocate(room_, 5 * kMiB);
    Allocate(room_, 4 * kMiB);
    Allocate(room_, kMiB / 2);
  }
  EXPECT_EQ(malloc_trims, 0);
}

TEST_F(MemoryRoomTest, TrimmingTheUnusedTrimsTheHeapToo) {
  Allocate(room_, kMiB / 2);
  malloc_trims = 0;
  room_.TrimUnused();
  EXPECT_EQ(malloc_trims, 0);  // It may be needed again.
  room_.TrimUnused();
  EXPECT_EQ(malloc_trims, 1);
  room_.TrimUnused();
  EXPECT_EQ(malloc_trims, 1);  // There was nothing more.
}

TEST_F(MemoryRoomTest, GivesThePoolBackWhenTheSystemHasNoMore) {
  Allocate(room_, 2 * kMiB);
  try {
    Allocate(room_, size_t{1} << 46);
    GTEST_SKIP() << "this system grants 64 TiB";
  } catch (const OutOfMemoryBudget& error) {
    ADD_FAILURE() << error.status();
  } catch (const std::bad_alloc&) {
  }
  EXPECT_EQ(room_.pooled_bytes(), 0);
  EXPECT_EQ(room_.allocated_bytes(), 0);
  EXPECT_THAT(Refusal(room_, 2 * kMiB), IsOk());
}

TEST_F(MemoryRoomTest, AbsurdSizesAreOutOfMemory) {
  const size_t absurd = std::numeric_limits<size_t>::max();
  EXPECT_THROW(room_.Allocate(absurd), std::bad_alloc);
  EXPECT_THROW(room_.Allocate(absurd / 2), std::bad_alloc);
  EXPECT_EQ(room_.allocated_bytes(), 0);
}

// Blocks that any thread may free, with their contents.
class Exchange {
 public:
  struct Item {
    Buffer buffer;
    size_t bytes = 0;
    int mark = 0;

    void Fill() { std::memset(buffer.get(), mark, bytes); }
    bool Intact() const {
      return buffer[0] == std::byte(mark) &&
             buffer[bytes / 2] == std::byte(mark) &&
             buffer[bytes - 1] == std::byte(mark);
    }
  };

  // Exchanges `item` for a random other one, which it returns.
  Item Swap(Item item, uint64_t random) {
    absl::MutexLock lock(&mutex_);
    return std::exchange(items_[random % items_.size()], std::move(item));
  }

 private:
  absl::Mutex mutex_;
  std::vector<Item> items_ ABSL_GUARDED_BY(mutex_) = std::vector<Item>(64);
};

TEST(MemoryRoomThreadsTest, KeepsBlocksApartAndAccountsExact) {
  MemoryRoom room({.max_pooled_bytes = 8 * kMiB});
  std::vector<std::shared_ptr<MemoryAccount>> accounts;
  {
    Exchange exchange;
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 4; ++thread) {
      accounts.push_back(std::make_shared<MemoryAccount>("account"));
      threads.emplace_back([&, thread, account = accounts.back()] {
        std::mt19937_64 random(static_cast<uint64_t>(thread));
        const ScopedAccount scope(account);
        for (int round = 0; round < 3000; ++round) {
          const size_t bytes = 1 + random() % (size_t{1} << (random() % 22));
          Exchange::Item item{Allocate(room, bytes), bytes, round % 256};
          item.Fill();
          const Exchange::Item other = exchange.Swap(std::move(item), random());
          ASSERT_TRUE(other.buffer == nullptr || other.Intact());
          if (round % 500 == 0) room.TrimTo(kMiB);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_LE(room.pooled_bytes(), static_cast<int64_t>(8 * kMiB));
  }
  for (const auto& account : accounts) EXPECT_EQ(account->live_bytes(), 0);
  EXPECT_EQ(room.allocated_bytes(), 0);
}

TEST(MemoryRoomThreadsTest, NeverPassesTheLimit) {
  MemoryRoom room({.max_pooled_bytes = kMiB, .limit_bytes = 4 * kMiB});
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&room] {
      for (int round = 0; round < 500; ++round) {
        const absl::Status refused = Refusal(room, 3 * kMiB / 2);
        ASSERT_TRUE(refused.ok() || LimitOf(refused)->value == 4 * kMiB);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(room.peak_bytes(), static_cast<int64_t>(4 * kMiB));
  EXPECT_EQ(room.allocated_bytes(), 0);
}

}  // namespace
}  // namespace backboned
