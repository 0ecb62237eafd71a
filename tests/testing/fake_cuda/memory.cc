#include "tests/testing/fake_cuda/memory.h"

#include <c10/util/Exception.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>

#include "tests/testing/fake_cuda/device.h"
#include "tests/testing/fake_cuda/streams.h"

namespace fake_cuda {
namespace {

// One device's memory, of FAKE_CUDA_BYTES. It is mapped twice: at the addresses
// of tensors, and for kernels.
class Arena {
 public:
  Arena()
      : bytes_(Pages(static_cast<size_t>(
            Setting("FAKE_CUDA_BYTES", int64_t{8} << 30)))) {
    const int file = memfd_create("fake-cuda", 0);
    TORCH_CHECK(file >= 0 && ftruncate(file, static_cast<off_t>(bytes_)) == 0,
                "no memory for a fake device");
    device_ = Map(file, PROT_NONE);
    shadow_ = Map(file, PROT_READ | PROT_WRITE);
    close(file);
    free_[0] = bytes_;
  }

  void* Allocate(size_t bytes) {
    const size_t size = Pages(bytes);
    const std::lock_guard lock(mutex_);
    const auto found = std::ranges::find_if(
        free_, [size](const auto& hole) { return hole.second >= size; });
    if (found == free_.end()) {
      ++out_of_memory_;
      TORCH_CHECK_WITH(OutOfMemoryError, false,
                       "CUDA out of memory. Tried to allocate ", bytes,
                       " bytes (fake)");
    }
    const auto [at, room] = *found;
    free_.erase(found);
    if (room > size) free_[at + size] = room - size;
    used_[at] = size;
    live_ += static_cast<int64_t>(size);
    peak_ = std::max(peak_, live_);
    reserved_ = std::max(reserved_, live_);
    return device_ + at;
  }

  // Returns the bytes of a block's pages.
  int64_t BytesOf(const void* data) {
    const std::lock_guard lock(mutex_);
    return static_cast<int64_t>(used_.at(Offset(data)));
  }

  void Free(const void* data) {
    const std::lock_guard lock(mutex_);
    auto block = used_.extract(Offset(data));
    size_t at = block.key(), size = block.mapped();
    live_ -= static_cast<int64_t>(size);
    madvise(shadow_ + at, size, MADV_REMOVE);
    auto next = free_.lower_bound(at);
    if (next != free_.end() && next->first == at + size) {
      size += next->second;
      next = free_.erase(next);
    }
    if (next != free_.begin() &&
        std::prev(next)->first + std::prev(next)->second == at) {
      std::prev(next)->second += size;
    } else {
      free_[at] = size;
    }
  }

  bool Owns(const void* data) const {
    const auto* const byte = static_cast<const char*>(data);
    return byte >= device_ && byte < device_ + bytes_;
  }
  size_t Offset(const void* data) const {
    return static_cast<size_t>(static_cast<const char*>(data) - device_);
  }
  void* Shadow(const void* data) const { return shadow_ + Offset(data); }

  c10::CachingDeviceAllocator::DeviceStats stats() {
    const std::lock_guard lock(mutex_);
    c10::CachingDeviceAllocator::DeviceStats stats;
    for (auto* const stat : {&stats.allocated_bytes, &stats.active_bytes}) {
      (*stat)[0].current = live_;
      (*stat)[0].peak = peak_;
    }
    stats.reserved_bytes[0].current = reserved_;
    stats.num_ooms = out_of_memory_;
    return stats;
  }
  size_t bytes() const { return bytes_; }

  // Gives freed memory back, which only the figures show.
  void Release() {
    const std::lock_guard lock(mutex_);
    reserved_ = live_;
  }

 private:
  static constexpr size_t kPage = 4096;

  static size_t Pages(size_t bytes) {
    return (bytes + kPage - 1) / kPage * kPage;
  }
  char* Map(int file, int access) const {
    void* const data =
        mmap(nullptr, bytes_, access, MAP_SHARED | MAP_NORESERVE, file, 0);
    TORCH_CHECK(data != MAP_FAILED, "cannot map a fake device");
    return static_cast<char*>(data);
  }

  const size_t bytes_;
  char* device_ = nullptr;
  char* shadow_ = nullptr;
  std::mutex mutex_;
  std::map<size_t, size_t> free_;  // Sizes by offset.
  std::map<size_t, size_t> used_;
  int64_t live_ = 0;
  int64_t peak_ = 0;
  int64_t reserved_ = 0;
  int64_t out_of_memory_ = 0;
};

Arena& ArenaOf(int device) {
  static std::array<Arena*, kMaxDevices> arenas = {};
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  Arena*& arena = arenas.at(static_cast<size_t>(device));
  if (arena == nullptr) arena = new Arena;
  return *arena;
}

c10::DeviceIndex DeviceWith(const void* data) {
  c10::DeviceIndex device = 0;
  while (!ArenaOf(device).Owns(data)) ++device;
  return device;
}

// Reports the bytes of a block times `sign`, as CUDA's allocator does.
void Report(void* data, int64_t sign, c10::DeviceIndex device) {
  if (!c10::memoryProfilingEnabled()) return;
  Arena& arena = ArenaOf(device);
  const auto live =
      static_cast<size_t>(arena.stats().allocated_bytes[0].current);
  c10::reportMemoryUsageToProfiler(data, sign * arena.BytesOf(data), live, live,
                                   c10::Device(c10::DeviceType::CUDA, device));
}

void Free(void* data) {
  if (data == nullptr) return;
  Streams::Get().Freed(data);
  const c10::DeviceIndex device = DeviceWith(data);
  Report(data, -1, device);
  ArenaOf(device).Free(data);
}

class DeviceAllocator final : public c10::DeviceAllocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    const c10::DeviceIndex device = CurrentDevice();
    void* const data = bytes == 0 ? nullptr : ArenaOf(device).Allocate(bytes);
    if (data != nullptr) {
      Streams::Get().Allocated(CurrentStream(device), data);
      Report(data, 1, device);
    }
    return {data, data, &Free, c10::Device(c10::DeviceType::CUDA, device)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Free; }
  void copy_data(void*, const void*, size_t) const override {
    TORCH_CHECK(false, "the fake device copies tensors only");
  }
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {
    for (int device = 0; device < DeviceCount(); ++device) {
      ArenaOf(device).Release();
    }
  }
  void recordStream(const c10::DataPtr& data, c10::Stream stream) override {
    Streams::Get().Recorded(stream, data.get());
  }
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(
      c10::DeviceIndex device) override {
    return ArenaOf(device).stats();
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex) override {}
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex device) override {
    Arena& arena = ArenaOf(device);
    const auto reserved =
        static_cast<size_t>(arena.stats().reserved_bytes[0].current);
    return {arena.bytes() - reserved, arena.bytes()};
  }
};

std::mutex pinned_mutex;
std::map<const char*, size_t> pinned;
int64_t registered = 0;

class PinnedAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* const data = std::malloc(std::max(bytes, size_t{1}));
    const std::lock_guard lock(pinned_mutex);
    pinned[static_cast<const char*>(data)] = bytes;
    return {data, data, &Delete, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Delete; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

 private:
  // The real one keeps the memory until the copies have been made.
  static void Delete(void* data) {
    Streams::Get().Forget(data);
    const std::lock_guard lock(pinned_mutex);
    pinned.erase(static_cast<const char*>(data));
    std::free(data);
  }
};

}  // namespace

c10::DeviceAllocator& DeviceMemory() {
  static auto* const allocator = new DeviceAllocator;
  return *allocator;
}

c10::Allocator& PinnedMemory() {
  static auto* const allocator = new PinnedAllocator;
  return *allocator;
}

bool IsPinned(const void* data) {
  const auto* const byte = static_cast<const char*>(data);
  const std::lock_guard lock(pinned_mutex);
  const auto next = pinned.upper_bound(byte);
  return next != pinned.begin() &&
         byte < std::prev(next)->first + std::prev(next)->second;
}

bool Register(const void* data, size_t bytes) {
  const auto* const begin = static_cast<const char*>(data);
  const std::lock_guard lock(pinned_mutex);
  const auto next = pinned.lower_bound(begin + bytes);
  if (next != pinned.begin() &&
      std::prev(next)->first + std::prev(next)->second > begin) {
    return false;
  }
  pinned[begin] = bytes;
  ++registered;
  return true;
}

bool Unregister(const void* data) {
  const std::lock_guard lock(pinned_mutex);
  return pinned.erase(static_cast<const char*>(data)) == 1;
}

int64_t registrations() {
  const std::lock_guard lock(pinned_mutex);
  return registered;
}

void* Shadow(const void* data) {
  return ArenaOf(DeviceWith(data)).Shadow(data);
}

}  // namespace fake_cuda
