#include "server/rpc/transport/decorator.h"

#include <utility>

#include "absl/status/statusor.h"
#include "server/callers/rights.h"
#include "server/limits/catching.h"
#include "server/limits/continuation.h"
#include "server/rpc/transport/call_log.h"

namespace backboned::rpc {
namespace {

// Runs a call that was let in.
Task<absl::Status> Run(Server& server, const Method& method, Call& call,
                       MessageStream& stream) {
  try {
    const absl::StatusOr<Sessions::Call> session = server.sessions().Begin(
        call.session(), call.principal(), call.received());
    if (!session.ok()) co_return session.status();
    call.set_account(server.accounts().Of(call.payer()));
    co_await Under(call.account());
    co_return co_await method.handler(call, stream);
  } catch (...) {
    co_return RunCatching([]() -> absl::Status { throw; });
  }
}

// Adds a call that has ended to what its caller has used.
void CountUsage(Server& server, const Call& call) {
  const Call::Record& record = call.record();
  server.usage().Count({.principal = call.principal(),
                        .instance = record.full_name,
                        .uid = record.uid,
                        .label = call.label()},
                       {.calls = 1,
                        .device_time = call.device_time(),
                        .flops = static_cast<double>(record.flops),
                        .bytes_in = record.bytes_in,
                        .bytes_out = record.bytes_out});
}

}  // namespace

Task<absl::Status> ServeCall(Surroundings& surroundings, const Method& method,
                             Call& call, MessageStream& stream) {
  Server& server = surroundings.server;
  call.set_access(method.access);
  const absl::Status permitted =
      CheckMethod(call.caller(), method.name, method.access);
  absl::StatusOr<Gate::Pass> place =
      permitted.ok() ? surroundings.gate.Enter(call.payer()) : permitted;
  absl::Status status = place.status();
  const bool is_served = place.ok();
  if (is_served) {
    stream.KeepPlace(*std::move(place));
    status = co_await Run(server, method, call, stream);
  } else {
    server.sessions().Touch(call.session(), call.principal(), call.received());
  }
  status = call.HowItEnded(status);
  co_await stream.Finish(status);
  LogCall(call, status, surroundings.metrics);
  if (is_served) CountUsage(server, call);
  co_return status;
}

}  // namespace backboned::rpc
