#include "server/admin/recent_usage.h"

#include <algorithm>
#include <functional>
#include <tuple>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/principals.h"
#include "server/device/chores.h"
#include "server/device/device_worker.h"
#include "server/metrics/call_metrics.h"
#include "server/usage/usage_log.h"

namespace backboned::admin {
namespace {

// Principals beyond these, by name, are left out: a front may bring any number.
constexpr size_t kMostRead = 100'000;

// A question that takes long is asked more rarely: it has this part of a core.
constexpr int kMostOfTime = 50;

// Leaves the principals with most device time, and the sum of the others.
std::vector<RecentUsage::Use> Most(std::vector<UsageLog::Row> rows) {
  std::ranges::stable_sort(
      rows, std::ranges::greater(), [](const UsageLog::Row& row) {
        return std::tuple(row.amounts.device_time, row.amounts.calls);
      });
  std::vector<RecentUsage::Use> uses;
  for (UsageLog::Row& row : rows) {
    if (uses.size() < RecentUsage::kMostListed) {
      uses.push_back({std::move(row.key.principal), row.amounts});
      continue;
    }
    if (uses.size() == RecentUsage::kMostListed) {
      uses.push_back({kOtherPrincipals, {}});
    }
    uses.back().amounts += row.amounts;
  }
  return uses;
}

}  // namespace

struct RecentUsage::Memory {
  absl::Mutex mutex;
  std::shared_ptr<const Answer> last ABSL_GUARDED_BY(mutex);
  bool is_asking ABSL_GUARDED_BY(mutex) = false;
  // When an answer is wanted next, by the server's clock.
  absl::Time next ABSL_GUARDED_BY(mutex) = absl::InfinitePast();
};

// Asks the log, on the worker for that. After an error of the disk, which the
// log tells as it writes, the last answer stays.
Detached RecentUsage::Ask(Server& server, std::shared_ptr<Memory> memory) {
  const absl::Time begun = server.clock().Now();
  const auto answer = std::make_shared<Answer>();
  answer->time = absl::Now();
  size_t span = 0;
  const std::function<absl::StatusOr<bool>()> sum =
      [&]() -> absl::StatusOr<bool> {
    absl::StatusOr<UsageLog::Answer> summed =
        server.usage().Sum({.by_principal = true,
                            .since = answer->time - kSpans[span].length,
                            .limit = kMostRead});
    if (!summed.ok()) return summed.status();
    answer->spans[span] = Most(std::move(summed->rows));
    return ++span < kSpans.size();
  };
  const DeviceWorker::Request caller = {.principal =
                                            std::string(kServerPrincipal)};
  const absl::StatusOr<DeviceWorker::Times> summed =
      co_await RunChore(server.usage_reader(), caller, sum);
  const absl::Time ended = server.clock().Now();
  absl::MutexLock lock(&memory->mutex);
  if (summed.ok()) memory->last = answer;
  memory->is_asking = false;
  memory->next = std::max(begun + kAge, ended + kMostOfTime * (ended - begun));
}

RecentUsage::RecentUsage(Server& server)
    : server_(server), memory_(std::make_shared<Memory>()) {}

std::shared_ptr<const RecentUsage::Answer> RecentUsage::Last() {
  const absl::Time now = server_.clock().Now();
  std::shared_ptr<const Answer> last;
  {
    absl::MutexLock lock(&memory_->mutex);
    last = memory_->last;
    if (memory_->is_asking || now < memory_->next) return last;
    memory_->is_asking = true;
  }
  Ask(server_, memory_);
  return last;
}

}  // namespace backboned::admin
