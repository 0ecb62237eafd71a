#include "server/memory/memory_allocator.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <cstddef>

namespace backboned {
namespace {

// Above c10's priority, which is 0.
constexpr uint8_t kPriority = 1;

class CpuAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* data = room_.Allocate(bytes);
    return {data, data, &MemoryRoom::Free, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &MemoryRoom::Free; }

  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  MemoryRoom& room() { return room_; }

 private:
  MemoryRoom room_{MemoryRoom::Options{}};
};

}  // namespace

MemoryRoom& CpuMemory() {
  // Never destroyed: tensors of static lifetime may outlive main.
  static CpuAllocator& allocator = []() -> CpuAllocator& {
    auto* made = new CpuAllocator;  // NOLINT: owned by the process.
    c10::SetCPUAllocator(made, kPriority);
    return *made;
  }();
  return allocator.room();
}

}  // namespace backboned
