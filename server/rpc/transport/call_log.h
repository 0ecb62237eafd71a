// Counts each call, and logs one structured line of it.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_CALL_LOG_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_CALL_LOG_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "server/metrics/call_metrics.h"
#include "server/rpc/transport/call.h"

namespace backboned::rpc {

// Counts a call that ended with `status`, and logs it as `key=value` fields:
// method, code, reason, instance, principal, session, label, traceparent,
// request_id, stream, calls, bytes_in, bytes_out, queue_ms, compute_ms,
// total_ms, and the message of an error. Failures of the server itself
// (INTERNAL) are errors, all other lines are information. A caller who may not
// call, or not do that, is recorded besides (Audit).
void LogCall(const Call& call, const absl::Status& status,
             CallMetrics& metrics);

// Counts and logs a call whose metadata could not be read, or whose caller may
// not call. `name`: the principal or account that it is, if that is known.
void LogRefusal(std::string_view method, std::string_view name,
                const absl::Status& status, CallMetrics& metrics);

// Returns how many such calls this process has recorded, by the reason's name.
// Thread-safe.
std::map<std::string, int64_t> RefusalCounts();

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_CALL_LOG_H_
