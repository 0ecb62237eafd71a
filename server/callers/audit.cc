#include "server/callers/audit.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace backboned {
namespace {

constexpr char kLogger[] = "backboned-audit";

}  // namespace

absl::Status OpenAuditFile(const std::string& path) {
  try {
    const auto logger = spdlog::basic_logger_mt(kLogger, path);
    logger->set_level(spdlog::level::info);
    logger->set_pattern("%v");
    logger->flush_on(spdlog::level::info);
    return absl::OkStatus();
  } catch (const spdlog::spdlog_ex& error) {
    return absl::FailedPreconditionError(error.what());
  }
}

void Audit(const nlohmann::ordered_json& record) {
  nlohmann::ordered_json line = {
      {"time",
       absl::FormatTime(absl::RFC3339_full, absl::Now(), absl::UTCTimeZone())}};
  line.update(record);
  // A caller's bytes may be no UTF-8.
  const std::string text = line.dump(
      -1, ' ', true, nlohmann::ordered_json::error_handler_t::replace);
  if (const std::shared_ptr<spdlog::logger> file = spdlog::get(kLogger)) {
    file->info(text);
  } else {
    spdlog::info("audit {}", text);
  }
}

}  // namespace backboned
