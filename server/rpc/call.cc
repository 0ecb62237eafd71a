#include "server/rpc/call.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "backbones/errors.h"

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

}  // namespace

bool IsToken(std::string_view text) {
  return !text.empty() && text.size() <= 64 &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '_' || c == '.' || c == '-';
         });
}

absl::StatusOr<Call> Call::Create(std::string_view method,
                                  grpc::ServerContext& context) {
  Call call(method, context);
  absl::Status status = ReadToken(context, "backboned-session", call.session_);
  if (status.ok()) status = ReadToken(context, "backboned-label", call.label_);
  if (!status.ok()) return status;
  return call;
}

Call::Call(std::string_view method, grpc::ServerContext& context)
    : method_(method),
      context_(&context),
      principal_(kLocalPrincipal),
      deadline_(absl::FromChrono(context.deadline())),
      received_(absl::Now()) {}

absl::Status Call::CheckWanted() const {
  if (absl::Now() >= deadline_) {
    return absl::DeadlineExceededError("the deadline has passed");
  }
  if (IsCancelled()) {
    return absl::CancelledError("the client cancelled the call");
  }
  return absl::OkStatus();
}

DeviceWorker::Request Call::WorkerRequest(uint64_t lane) const {
  return {.principal = principal_,
          .run = flow().run,
          .lane = lane,
          .deadline = deadline_,
          .cancelled = [this] { return IsCancelled(); },
          .account = account_};
}

}  // namespace backboned::rpc
