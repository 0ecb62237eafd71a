#include "server/device/gpu_memory.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/StorageImpl.h>
#include <c10/util/Exception.h>

#include <utility>

#include "absl/status/status.h"

namespace backboned {
namespace {

// Bytes that an account is charged with while this object lives.
class GpuCharge {
 public:
  // Throws OutOfMemoryBudget. Null: no account.
  GpuCharge(std::shared_ptr<MemoryAccount> account, int64_t bytes)
      : account_(std::move(account)), bytes_(bytes) {
    if (!IsCounted()) return;
    absl::Status charged = account_->on_gpus()->Charge(bytes_);
    if (!charged.ok()) throw OutOfMemoryBudget(std::move(charged));
  }
  ~GpuCharge() {
    if (IsCounted()) account_->on_gpus()->Refund(bytes_);
  }
  GpuCharge(const GpuCharge&) = delete;
  GpuCharge& operator=(const GpuCharge&) = delete;

 private:
  bool IsCounted() const {
    return account_ != nullptr && account_->on_gpus() != nullptr;
  }

  const std::shared_ptr<MemoryAccount> account_;
  const int64_t bytes_;
};

// The memory of a tensor, and its charge.
struct CountedMemory {
  explicit CountedMemory(int64_t bytes)
      : charge(ScopedAccount::Current(), bytes) {}

  static void Delete(void* counted) {
    delete static_cast<CountedMemory*>(counted);
  }

  const GpuCharge charge;
  c10::DataPtr memory;
};

}  // namespace

GpuMemory GpuMemoryOf(c10::Device gpu) {
  c10::DeviceAllocator* const allocator = c10::getDeviceAllocator(gpu.type());
  GpuMemory memory;
  try {
    const auto [free, total] = allocator->getMemoryInfo(gpu.index());
    memory.free = static_cast<int64_t>(free);
    memory.total = static_cast<int64_t>(total);
    const auto stats = allocator->getDeviceStats(gpu.index());
    // The first of each is of small and large blocks together.
    memory.allocated = stats.allocated_bytes[0].current;
    memory.pooled = stats.reserved_bytes[0].current - memory.allocated;
  } catch (const c10::Error&) {
  }
  return memory;
}

void ReleasePooledGpuMemory(c10::Device gpu) {
  const c10::DeviceGuard guard(gpu);
  c10::getDeviceAllocator(c10::DeviceType::CUDA)->emptyCache();
}

void CountOnGpu(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.device().is_cpu()) return;
  c10::StorageImpl& storage = *tensor.storage().unsafeGetStorageImpl();
  const c10::DataPtr& known = storage.data_ptr();
  if (known.get_deleter() == &CountedMemory::Delete) return;
  auto* const counted =
      new CountedMemory(static_cast<int64_t>(storage.nbytes()));
  counted->memory = storage.set_data_ptr(
      {known.get(), counted, &CountedMemory::Delete, known.device()});
}

std::shared_ptr<const void> ChargeGpuMemory(
    std::shared_ptr<MemoryAccount> account, int64_t bytes) {
  return std::make_shared<const GpuCharge>(std::move(account), bytes);
}

// LibTorch's allocators report to it what this thread does.
struct GpuMeter::Reports : c10::MemoryReportingInfoBase {
  explicit Reports(c10::Device of) : gpu(of) {}

  void reportMemoryUsage(void*, int64_t size, size_t, size_t,
                         c10::Device device) override {
    if (device == gpu) bytes += size;
  }
  bool memoryProfilingEnabled() const override { return true; }

  const c10::Device gpu;
  int64_t bytes = 0;
};

GpuMeter::GpuMeter(c10::Device gpu)
    : reports_(std::make_shared<Reports>(gpu)),
      guard_(c10::DebugInfoKind::PROFILER_STATE, reports_) {}

int64_t GpuMeter::bytes() const { return reports_->bytes; }

}  // namespace backboned
