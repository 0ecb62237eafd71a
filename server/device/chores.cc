#include "server/device/chores.h"

#include <span>

namespace backboned {
namespace {

class Chore : public BatchWork {
 public:
  explicit Chore(const std::function<absl::StatusOr<bool>()>& step)
      : step_(step) {}

  int64_t NextSamples() const override { return has_more_ ? 1 : 0; }

  absl::Status RunBatch(std::span<BatchWork* const>) override {
    const absl::StatusOr<bool> more = step_();
    if (more.ok()) has_more_ = *more;
    return more.status();
  }

 private:
  const std::function<absl::StatusOr<bool>()>& step_;
  bool has_more_ = true;
};

}  // namespace

Task<absl::StatusOr<DeviceWorker::Times>> RunChore(
    DeviceWorker& chores, const DeviceWorker::Request& request,
    const std::function<absl::StatusOr<bool>()>& step) {
  Chore chore(step);
  DeviceWorker::Request unmetered = request;  // No device works.
  unmetered.meter = nullptr;
  co_return co_await chores.RunTogether(unmetered, chore);
}

}  // namespace backboned
