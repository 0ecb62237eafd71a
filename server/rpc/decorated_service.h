// One decorator around every method.

#ifndef BACKBONED_SERVER_RPC_DECORATED_SERVICE_H_
#define BACKBONED_SERVER_RPC_DECORATED_SERVICE_H_

#include <grpcpp/impl/service_type.h>

#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/answers.h"
#include "server/host.h"
#include "server/rpc/call.h"
#include "server/rpc/gate.h"
#include "server/rpc/message_stream.h"
#include "server/rpc/once.h"
#include "server/rpc/stall_watchdog.h"

namespace backboned::rpc {

// What the decorator needs; shared by all services of a server.
struct Surroundings {
  Host& host;
  Gate& gate;
  StallWatchdog& watchdog;
};

// A gRPC service whose methods are registered by name and all run inside the
// same decorator: metadata, admission, session, exceptions, status details, one
// log line.
//
// Every method takes and gives raw messages, which are decoded in our own code:
// with generated deserialisers an undecodable message looks like a half-close.
// On the wire they are what the .proto files say, unary methods too.
class DecoratedService : public grpc::Service {
 protected:
  using Handler = std::function<absl::Status(Call&, MessageStream&)>;

  // `service`: the full name, `backboned.v1.BackboneService`. `surroundings`
  // must outlive it.
  DecoratedService(std::string_view service, Surroundings& surroundings);

  Host& host() const { return surroundings_.host; }
  const Gate& gate() const { return surroundings_.gate; }

  // Registers a method of any kind.
  void AddMethod(std::string_view method, Handler handler);

  // Registers a method with one message each way.
  template <typename Request, typename Response>
  void AddUnary(
      std::string_view method,
      std::function<absl::StatusOr<Response>(Call&, const Request&)> handler) {
    AddMethod(method, [handler = std::move(handler)](Call& call,
                                                     MessageStream& stream) {
      Request request;
      absl::Status read = stream.ReadRequest(request);
      if (!read.ok()) return read;
      absl::StatusOr<Response> response = handler(call, request);
      if (!response.ok()) return response.status();
      return stream.WriteResponse(*response);
    });
  }

  // The same for a change, which a retry with its request id does not repeat.
  template <typename Request, typename Response>
  void AddChange(
      std::string_view method,
      std::function<absl::StatusOr<Response>(Call&, const Request&)> handler) {
    AddUnary<Request, Response>(
        method, [this, handler = std::move(handler)](Call& call,
                                                     const Request& request) {
          return RunOnce<Response>(host(), call, request,
                                   [&] { return handler(call, request); });
        });
  }

  // The same for a change whose header has tensors behind it, which the handler
  // reads.
  template <typename Header, typename Response>
  void AddUpload(std::string_view method,
                 std::function<absl::StatusOr<Response>(Call&, MessageStream&,
                                                        const Header&)>
                     handler) {
    AddMethod(method, [this, handler = std::move(handler)](
                          Call& call, MessageStream& stream) {
      Header header;
      absl::Status read = stream.ReadHeader(header);
      if (!read.ok()) return read;
      absl::StatusOr<Response> response = RunOnce<Response>(
          host(), call, header, [&] { return handler(call, stream, header); });
      if (!response.ok()) return response.status();
      return stream.WriteResponse(*response);
    });
  }

  // The same for a change whose answer, a Result, has tensors behind it too:
  // the handler sends it with its ticket.
  template <typename Header, typename Result>
  void AddExchange(std::string_view method,
                   std::function<absl::Status(Call&, MessageStream&,
                                              const Header&, AnswerTicket)>
                       handler) {
    AddMethod(method, [this, handler = std::move(handler)](
                          Call& call, MessageStream& stream) {
      Header header;
      absl::Status read = stream.ReadHeader(header);
      if (!read.ok()) return read;
      return AnswerOnce<Result>(
          host(), call, stream, header, [&](AnswerTicket ticket) {
            return handler(call, stream, header, std::move(ticket));
          });
    });
  }

 private:
  grpc::Status Serve(std::string_view method, const Handler& handler,
                     grpc::ServerContext& context,
                     MessageStream::Stream& stream);

  const std::string service_;
  Surroundings& surroundings_;
  std::deque<std::string> paths_;  // gRPC keeps pointers to them.
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_DECORATED_SERVICE_H_
