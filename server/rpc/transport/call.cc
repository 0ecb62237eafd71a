#include "server/rpc/transport/call.h"

#include <grpc/support/time.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/errors.h"

namespace backboned::rpc {
namespace {

// Sets `value` from metadata `key`, if the caller sent it.
absl::Status ReadToken(const grpc::ServerContext& context, const char* key,
                       std::string& value) {
  const auto found = context.client_metadata().find(key);
  if (found == context.client_metadata().end()) return absl::OkStatus();
  value.assign(found->second.data(), found->second.size());
  if (IsToken(value)) return absl::OkStatus();
  return InvalidOption(absl::StrCat(
      "metadata ", key, " is not 1 to 64 characters of [A-Za-z0-9_.-]"));
}

// Returns the caller's traceparent, if there is one of the right form.
std::string TraceparentOf(const grpc::ServerContext& context) {
  const auto found = context.client_metadata().find("traceparent");
  if (found == context.client_metadata().end()) return "";
  const std::string_view text(found->second.data(), found->second.size());
  return IsTraceparent(text) ? std::string(text) : "";
}

// Returns the caller's remaining time, which gRPC measures on CLOCK_MONOTONIC;
// only ServerContext::deadline() turns it into a date.
absl::Duration TimeLeft(const grpc::ServerContext& context) {
  const gpr_timespec deadline =
      gpr_convert_clock_type(context.raw_deadline(), GPR_CLOCK_MONOTONIC);
  const gpr_timespec never = gpr_inf_future(GPR_CLOCK_MONOTONIC);
  if (gpr_time_cmp(deadline, never) == 0) return absl::InfiniteDuration();
  const gpr_timespec left =
      gpr_time_sub(deadline, gpr_now(GPR_CLOCK_MONOTONIC));
  return absl::Seconds(left.tv_sec) + absl::Nanoseconds(left.tv_nsec);
}

}  // namespace

bool IsToken(std::string_view text) {
  return !text.empty() && text.size() <= 64 &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '_' || c == '.' || c == '-';
         });
}

bool IsTraceparent(std::string_view text) {
  constexpr size_t kBytes = 55;
  if (text.size() != kBytes) return false;  // Before it is cut into pieces.
  const std::vector<std::string> parts =
      absl::StrSplit(absl::string_view(text.data(), text.size()), '-');
  constexpr size_t kSizes[] = {2, 32, 16, 2};
  if (parts.size() != std::size(kSizes)) return false;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].size() != kSizes[i] ||
        parts[i].find_first_not_of("0123456789abcdef") !=
            std::string_view::npos) {
      return false;
    }
  }
  const auto is_zero = [](std::string_view part) {
    return part.find_first_not_of('0') == std::string_view::npos;
  };
  return parts[0] != "ff" && !is_zero(parts[1]) && !is_zero(parts[2]);
}

absl::StatusOr<Call> Call::Create(std::string_view method,
                                  const grpc::ServerContext& context,
                                  const Identity& identity,
                                  std::stop_token gone,
                                  const Directory& directory,
                                  const Clock& clock) {
  Call call(method, std::move(gone), TimeLeft(context), clock);
  call.identity_ = identity;
  absl::Status status = call.Recheck(directory);
  if (status.ok())
    status = ReadToken(context, "backboned-session", call.session_);
  if (status.ok()) status = ReadToken(context, "backboned-label", call.label_);
  if (!status.ok()) return status;
  call.traceparent_ = TraceparentOf(context);
  return call;
}

Call Call::Within(std::string_view method, std::stop_token gone,
                  absl::Duration timeout, std::string_view traceparent) const {
  Call call(method, std::move(gone), timeout, *clock_);
  call.identity_ = identity_;
  call.caller_ = caller_;
  call.session_ = session_;
  call.label_ = label_;
  if (IsTraceparent(traceparent)) call.traceparent_ = traceparent;
  return call;
}

absl::Status Call::Recheck(const Directory& directory) {
  absl::StatusOr<Caller> caller = directory.Find(identity_, absl::Now());
  if (caller.ok()) caller_ = *std::move(caller);
  return caller.status();
}

Call::Call(std::string_view method, std::stop_token gone,
           absl::Duration timeout, const Clock& clock)
    : method_(method),
      gone_(std::move(gone)),
      clock_(&clock),
      received_(clock.Now()),
      deadline_(received_ + timeout) {}

absl::Status Call::CheckWanted() const {
  if (clock_->Now() >= deadline_) {
    return absl::DeadlineExceededError("the deadline has passed");
  }
  if (IsCancelled()) {
    return absl::CancelledError("the client cancelled the call");
  }
  return absl::OkStatus();
}

absl::Status Call::HowItEnded(const absl::Status& status) const {
  // A client whose time has run out cancels the call before our own deadline,
  // which gRPC rounds up by up to a hundredth.
  const absl::Duration early =
      (deadline_ - received_) / 50 + absl::Milliseconds(20);
  if (!absl::IsCancelled(status) || ReasonOf(status).has_value() ||
      clock_->Now() < deadline_ - early) {
    return status;
  }
  return absl::DeadlineExceededError("the deadline has passed");
}

DeviceWorker::Request Call::WorkerRequest(uint64_t lane) const {
  return {.principal = principal(),
          .run = flow().run,
          .lane = lane,
          .deadline = deadline_,
          .stop = gone_,
          .account = account_,
          .meter = meter_};
}

void Call::set_found(const Instance& instance) {
  record_.full_name = instance.FullName();
  record_.uid = instance.uid();
}

}  // namespace backboned::rpc
