// Runs a method inside the decorator.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_DECORATOR_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_DECORATOR_H_

#include "absl/status/status.h"
#include "base/task.h"
#include "server/metrics/call_metrics.h"
#include "server/rpc/transport/call.h"
#include "server/rpc/transport/call_streams.h"
#include "server/rpc/transport/gate.h"
#include "server/rpc/transport/message_stream.h"
#include "server/rpc/transport/method.h"
#include "server/rpc/transport/stall_watchdog.h"
#include "server/server.h"

namespace backboned::rpc {

// The decorator's dependencies; shared by all services of a server.
struct Surroundings {
  Server& server;
  Gate& gate;
  StallWatchdog& watchdog;
  CallStreams& streams;
  CallMetrics& metrics;
};

// Serves a call, whichever way it came: admission, session, account,
// exceptions, the status for the client, its metrics, one log line.
Task<absl::Status> ServeCall(Surroundings& surroundings, const Method& method,
                             Call& call, MessageStream& stream);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_DECORATOR_H_
