#include "server/rpc/transport/call_log.h"

#include <spdlog/spdlog.h>

#include <string>
#include <string_view>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/callers/audit.h"
#include "server/rpc/transport/status.h"

namespace backboned::rpc {
namespace {

absl::string_view View(std::string_view text) {
  return {text.data(), text.size()};
}

void AddField(std::string& line, absl::string_view key,
              absl::string_view value) {
  if (!value.empty()) absl::StrAppend(&line, " ", key, "=", value);
}

void AddMilliseconds(std::string& line, absl::string_view key,
                     absl::Duration value) {
  absl::StrAppend(&line, " ", key, "=",
                  absl::SixDigits(absl::ToDoubleMilliseconds(value)));
}

void AddStatus(std::string& line, const absl::Status& status) {
  AddField(line, "code", absl::StatusCodeToString(status.code()));
  if (status.ok()) return;
  AddField(line, "reason", View(ReasonName(ReasonOrDefault(status))));
  absl::StrAppend(&line, " message=\"", absl::CEscape(status.message()), "\"");
}

spdlog::level::level_enum Level(const absl::Status& status) {
  return absl::IsInternal(status) ? spdlog::level::err : spdlog::level::info;
}

}  // namespace

// The calls that were recorded.
struct Counts {
  absl::Mutex mutex;
  std::map<std::string, int64_t> counts ABSL_GUARDED_BY(mutex);
};

Counts& Refusals() {
  static auto* counts = new Counts;
  return *counts;
}

// Records that somebody was refused.
void AuditRefusal(const absl::Status& status, std::string_view method,
                  std::string_view principal, std::string_view instance) {
  if (!absl::IsPermissionDenied(status) && !absl::IsUnauthenticated(status)) {
    return;
  }
  {
    absl::MutexLock lock(&Refusals().mutex);
    ++Refusals().counts[std::string(ReasonName(ReasonOrDefault(status)))];
  }
  Audit({{"event", "call refused"},
         {"principal", principal},
         {"method", method},
         {"instance", instance},
         {"reason", ReasonName(ReasonOrDefault(status))},
         {"message", std::string(status.message())}});
}

std::map<std::string, int64_t> RefusalCounts() {
  absl::MutexLock lock(&Refusals().mutex);
  return Refusals().counts;
}

void LogCall(const Call& call, const absl::Status& status,
             CallMetrics& metrics) {
  const absl::Duration total = call.Elapsed();
  metrics.Count(call.method(), {.code = status.code(),
                                .principal = call.principal(),
                                .total = total,
                                .queue = call.record().times.queue,
                                .compute = call.record().times.compute,
                                .bytes_in = call.record().bytes_in,
                                .bytes_out = call.record().bytes_out});
  AuditRefusal(status, call.method(), call.principal(),
               std::string_view(call.record().instance).substr(0, 130));
  if (!spdlog::should_log(Level(status))) return;
  const Call::Record& record = call.record();
  std::string line = absl::StrCat("call method=", call.method());
  AddStatus(line, status);
  // Names come from clients; unchecked ones may be anything of any length.
  AddField(line, "instance", absl::CEscape(record.instance.substr(0, 130)));
  AddField(line, "principal", call.principal());
  AddField(line, "session", call.session());
  AddField(line, "label", call.label());
  AddField(line, "traceparent", call.traceparent());
  AddField(line, "request_id", record.request_id);
  if (record.stream != 0) absl::StrAppend(&line, " stream=", record.stream);
  if (record.calls != 0) absl::StrAppend(&line, " calls=", record.calls);
  absl::StrAppend(&line, " bytes_in=", record.bytes_in,
                  " bytes_out=", record.bytes_out);
  AddMilliseconds(line, "queue_ms", record.times.queue);
  AddMilliseconds(line, "compute_ms", record.times.compute);
  AddMilliseconds(line, "total_ms", total);
  spdlog::log(Level(status), line);
}

void LogRefusal(std::string_view method, std::string_view name,
                const absl::Status& status, CallMetrics& metrics) {
  metrics.CountRefused(method, status.code());
  AuditRefusal(status, method, name, /*instance=*/"");
  std::string line = absl::StrCat("call method=", View(method));
  AddStatus(line, status);
  spdlog::log(Level(status), line);
}

}  // namespace backboned::rpc
