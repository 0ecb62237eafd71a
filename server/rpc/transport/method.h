// A method, as the decorator runs it.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_METHOD_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_METHOD_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "base/task.h"
#include "proto/wire/message.h"
#include "server/callers/access.h"
#include "server/rpc/transport/call.h"
#include "server/rpc/transport/call_order.h"
#include "server/rpc/transport/message_stream.h"

namespace backboned::rpc {

// A method of a service, however its calls come.
struct Method {
  std::string name;
  Access access;
  // None: the method is a stream of calls of the others.
  std::function<Task<absl::Status>(Call&, MessageStream&)> handler = {};
  // Returns what a call works on whose header is in `part`: the instance's name
  // as the client wrote it, or nothing if the handler will refuse the header.
  std::function<CallOrder::Work(const wire::Message& part)> work = {};
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_METHOD_H_
