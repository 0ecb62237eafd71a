#include "server/usage/usage_counts.h"

namespace backboned {

UsageAmounts& UsageAmounts::operator+=(const UsageAmounts& other) {
  calls += other.calls;
  device_time += other.device_time;
  flops += other.flops;
  bytes_in += other.bytes_in;
  bytes_out += other.bytes_out;
  return *this;
}

void UsageCounts::Add(const UsageKeyView& key, const UsageAmounts& amounts) {
  absl::MutexLock lock(&mutex_);
  const auto found = rows_.find(key);
  (found == rows_.end() ? NewRow(key) : found->second) += amounts;
}

UsageAmounts& UsageCounts::NewRow(const UsageKeyView& key) {
  if (key.hour != hour_) {
    hour_ = key.hour;
    rows_of_.clear();
  }
  UsageKey own = {.hour = key.hour,
                  .principal = std::string(key.principal),
                  .instance = std::string(key.instance),
                  .uid = std::string(key.uid),
                  .label = std::string(key.label)};
  size_t& rows = rows_of_[own.principal];
  if (rows >= kMostRowsOfPrincipal || rows_.size() >= kMostRows) {
    own.instance = own.label = kOtherUsage;
    own.uid.clear();
  } else {
    ++rows;
  }
  return rows_[std::move(own)];
}

UsageCounts::Rows UsageCounts::Get() const {
  absl::MutexLock lock(&mutex_);
  Rows rows;
  for (const auto& row : rows_) {
    if (row.second != UsageAmounts()) rows.push_back(row);
  }
  return rows;
}

UsageCounts::Rows UsageCounts::Take() {
  Rows taken = Get();
  absl::MutexLock lock(&mutex_);
  for (auto& [key, amounts] : taken) {
    // More may have come meanwhile.
    amounts = std::exchange(rows_.find(key)->second, UsageAmounts());
  }
  std::erase_if(rows_, [this](const auto& row) {
    return row.first.hour != hour_ && row.second == UsageAmounts();
  });
  return taken;
}

void UsageCounts::GiveBack(const Rows& rows) {
  absl::MutexLock lock(&mutex_);
  for (const auto& [key, amounts] : rows) rows_[key] += amounts;
}

}  // namespace backboned
