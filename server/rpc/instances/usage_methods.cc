// Serves ListUsage.

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/errors.h"
#include "server/device/chores.h"
#include "server/rpc/convert/timings.h"
#include "server/rpc/instances/instance_service.h"
#include "server/rpc/instances/page.h"
#include "server/usage/usage_log.h"

namespace backboned::rpc {
namespace {

using google::protobuf::Timestamp;
using google::protobuf::util::TimeUtil;

absl::StatusOr<absl::Time> TimeOf(const Timestamp& time, const char* field) {
  if (time.seconds() >= TimeUtil::kTimestampMinSeconds &&
      time.seconds() <= TimeUtil::kTimestampMaxSeconds && time.nanos() >= 0 &&
      time.nanos() < 1'000'000'000) {
    return absl::FromUnixSeconds(time.seconds()) +
           absl::Nanoseconds(time.nanos());
  }
  return InvalidOption(absl::StrCat(field, " is no time"));
}

absl::Status SetBy(int by, UsageLog::Query& query) {
  switch (by) {
    case v1::USAGE_BY_USER:
      query.by_principal = true;
      break;
    case v1::USAGE_BY_INSTANCE:
      query.by_instance = true;
      break;
    case v1::USAGE_BY_LABEL:
      query.by_label = true;
      break;
    default:
      return InvalidOption(absl::StrCat("by has ", by,
                                        ", must be USAGE_BY_USER, "
                                        "USAGE_BY_INSTANCE or USAGE_BY_LABEL"));
  }
  return absl::OkStatus();
}

// Returns what a caller asks for, of which admins see everybody's.
absl::StatusOr<UsageLog::Query> QueryOf(const Call& call,
                                        const v1::ListUsageRequest& request) {
  UsageLog::Query query;
  for (const int by : request.by()) {
    absl::Status set = SetBy(by, query);
    if (!set.ok()) return set;
  }
  if (call.caller().rights != Rights::kAdmin)
    query.principal = call.principal();
  if (request.has_since()) {
    absl::StatusOr<absl::Time> since = TimeOf(request.since(), "since");
    if (!since.ok()) return since.status();
    query.since = *since;
  }
  if (request.has_until()) {
    absl::StatusOr<absl::Time> until = TimeOf(request.until(), "until");
    if (!until.ok()) return until.status();
    query.until = *until;
  }
  if (query.since > query.until) {
    return InvalidOption("since is after until");
  }
  if (const std::string_view token = request.page_token();
      token.starts_with(kTokenPrefix)) {
    query.after = token.substr(kTokenPrefix.size());
  }
  query.limit = kMaxPageSize + 1;  // Tells of another page, too.
  return query;
}

Timestamp StampOf(absl::Time time) {
  return TimeUtil::SecondsToTimestamp(absl::ToUnixSeconds(time));
}

v1::UsageRow RowOf(const UsageLog::Row& row) {
  v1::UsageRow result;
  result.set_principal(row.key.principal);
  result.set_instance(row.key.instance);
  result.set_instance_uid(row.key.uid);
  result.set_label(row.key.label);
  *result.mutable_begin() = StampOf(row.begin);
  *result.mutable_end() = StampOf(row.end);
  result.set_calls(row.amounts.calls);
  *result.mutable_device_time() = ToProto(row.amounts.device_time);
  result.set_flops(row.amounts.flops);
  result.set_received_bytes(row.amounts.bytes_in);
  result.set_sent_bytes(row.amounts.bytes_out);
  return result;
}

}  // namespace

Task<absl::StatusOr<v1::ListUsageResponse>> InstanceService::ListUsage(
    Call& call, const v1::ListUsageRequest& request) {
  absl::StatusOr<UsageLog::Query> query = QueryOf(call, request);
  if (!query.ok()) co_return query.status();
  // The disk may take its time.
  UsageLog::Answer answer;
  const std::function<absl::StatusOr<bool>()> sum =
      [&]() -> absl::StatusOr<bool> {
    absl::StatusOr<UsageLog::Answer> summed = server().usage().Sum(*query);
    if (!summed.ok()) return summed.status();
    answer = *std::move(summed);
    return false;
  };
  const DeviceWorker::Request caller = call.WorkerRequest(/*lane=*/0);
  const absl::StatusOr<DeviceWorker::Times> summed =
      co_await RunChore(server().usage_reader(), caller, sum);
  if (!summed.ok()) co_return summed.status();
  absl::StatusOr<Page> page =
      CutPage(answer.rows, &UsageLog::RowKey, request.page_size(),
              request.page_token());
  if (!page.ok()) co_return page.status();
  v1::ListUsageResponse response;
  for (size_t i = page->begin; i < page->end; ++i) {
    *response.add_rows() = RowOf(answer.rows[i]);
  }
  response.set_next_page_token(page->next_token);
  *response.mutable_device_busy() = ToProto(answer.busy);
  co_return response;
}

}  // namespace backboned::rpc
