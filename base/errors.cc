#include "base/errors.h"

#include <string>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace backboned {
namespace {

// The payload: the reason's number. For a limit's error five more lines: the
// limit's value, the requested one, the retry delay in nanoseconds, the scope
// and the name.
constexpr char kPayload[] = "backboned.v1.ErrorDetail";
constexpr size_t kReasonFields = 1;
constexpr size_t kLimitFields = 6;

// Holds an instance's name behind its owner's: 64 bytes each, and a slash.
constexpr size_t kMaxQuotedBytes = 130;
constexpr std::string_view kEllipsis = "...";

std::vector<std::string> Fields(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kPayload);
  if (!payload.has_value()) {
    return {};
  }
  return absl::StrSplit(std::string(*payload),
                        absl::MaxSplits('\n', kLimitFields - 1));
}

int64_t ToInt(const std::string& field) {
  int64_t value = 0;
  return absl::SimpleAtoi(field, &value) ? value : 0;
}

// Cuts `text` to at most `max_bytes`, between two characters of UTF-8.
std::string Cut(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) {
    return std::string(text);
  }
  size_t end = max_bytes - kEllipsis.size();
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) {
    --end;
  }
  return std::string(text.substr(0, end)).append(kEllipsis);
}

}  // namespace

absl::Status Error(absl::StatusCode code, Reason reason,
                   std::string_view message) {
  absl::Status status(code, Cut(message, kMaxMessageBytes));
  status.SetPayload(kPayload,
                    absl::Cord(absl::StrCat(static_cast<int>(reason))));
  return status;
}

absl::Status InvalidOption(std::string_view message) {
  return Error(absl::StatusCode::kInvalidArgument, Reason::kInvalidOption,
               message);
}

absl::Status LimitReached(const Limit& limit, std::string_view message) {
  absl::Status status = Error(absl::StatusCode::kResourceExhausted,
                              Reason::kLimitReached, message);
  status.SetPayload(
      kPayload,
      absl::Cord(absl::StrCat(
          static_cast<int>(Reason::kLimitReached), "\n", limit.value, "\n",
          limit.requested, "\n", absl::ToInt64Nanoseconds(limit.retry_delay),
          "\n", static_cast<int>(limit.scope), "\n", limit.name)));
  return status;
}

std::optional<Reason> ReasonOf(const absl::Status& status) {
  const std::vector<std::string> fields = Fields(status);
  if (fields.size() < kReasonFields) {
    return std::nullopt;
  }
  return static_cast<Reason>(ToInt(fields[0]));
}

absl::Status PrefixMessage(std::string_view place, const absl::Status& status,
                           Reason otherwise) {
  if (status.ok()) return status;
  return Error(status.code(), ReasonOf(status).value_or(otherwise),
               absl::StrCat(std::string(place), ": ", status.message()));
}

std::optional<Limit> LimitOf(const absl::Status& status) {
  const std::vector<std::string> fields = Fields(status);
  if (fields.size() < kLimitFields) {
    return std::nullopt;
  }
  return Limit{.name = fields[5],
               .value = ToInt(fields[1]),
               .requested = ToInt(fields[2]),
               .retry_delay = absl::Nanoseconds(ToInt(fields[3])),
               .scope = static_cast<LimitScope>(ToInt(fields[4]))};
}

std::string Quote(std::string_view name) {
  return absl::StrCat("\"", absl::CEscape(Cut(name, kMaxQuotedBytes)), "\"");
}

std::string FormatShape(std::span<const int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

}  // namespace backboned
