// Runs every method inside one decorator.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_DECORATED_SERVICE_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_DECORATED_SERVICE_H_

#include <grpcpp/impl/service_type.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/callers/access.h"
#include "server/callers/answer_log.h"
#include "server/instances/instance.h"
#include "server/rpc/transport/call.h"
#include "server/rpc/transport/gate.h"
#include "server/rpc/transport/message_stream.h"
#include "server/rpc/transport/once.h"
#include "server/rpc/transport/stall_watchdog.h"
#include "server/server.h"

namespace backboned::rpc {

// The decorator's dependencies; shared by all services of a server.
struct Surroundings {
  Server& server;
  Gate& gate;
  StallWatchdog& watchdog;
};

// A gRPC service whose methods are registered by name and all run inside the
// same decorator: metadata, admission, session, exceptions, status details, one
// log line.
//
// Every method takes and gives raw messages, which our own code decodes:
// generated deserialisers make an undecodable message look like a half-close.
// On the wire the messages are those of the .proto files, in unary methods too.
class DecoratedService : public grpc::Service {
 protected:
  // `service`: the full name, `backboned.v1.BackboneService`. `surroundings`
  // must outlive the service.
  DecoratedService(std::string_view service, Surroundings& surroundings);

  Server& server() const { return surroundings_.server; }
  const Gate& gate() const { return surroundings_.gate; }

  // Finds the instance `name` for a method that has `access` to it, and tells
  // the log. Every instance that a request names is found here, so that rights
  // have one door. Without `access`, that of the method's registration.
  //
  // Returns kNotFound (kInstanceNotFound) or, for kWrite, kFailedPrecondition
  // (kReadOnly).
  absl::StatusOr<std::shared_ptr<Instance>> Resolve(Call& call,
                                                    const std::string& name,
                                                    Access access);
  absl::StatusOr<std::shared_ptr<Instance>> Resolve(Call& call,
                                                    const std::string& name) {
    return Resolve(call, name, call.access());
  }

  // The following register a method of a derived class under its name, with the
  // access that it has to the instance in its request. The method's type tells
  // the messages that it reads and answers with.

  // Adds a method that answers with tensors, which it sends itself.
  template <typename Service, typename Request>
  void AddDownload(std::string_view name,
                   absl::Status (Service::*method)(Call&, MessageStream&,
                                                   const Request&),
                   Access access) {
    AddMethod(name, access, [this, method](Call& call, MessageStream& stream) {
      Request request;
      absl::Status read = stream.ReadRequest(request);
      if (!read.ok()) return read;
      return (Derived<Service>().*method)(call, stream, request);
    });
  }

  // Adds a method with one message each way.
  template <typename Service, typename Request, typename Response>
  void AddUnary(std::string_view name,
                absl::StatusOr<Response> (Service::*method)(Call&,
                                                            const Request&),
                Access access) {
    AddUnaryHandler<Request, Response>(
        name, access, [this, method](Call& call, const Request& request) {
          return (Derived<Service>().*method)(call, request);
        });
  }

  // Adds a unary change, which a retry with its request id does not repeat.
  template <typename Service, typename Request, typename Response>
  void AddChange(std::string_view name,
                 absl::StatusOr<Response> (Service::*method)(Call&,
                                                             const Request&),
                 Access access) {
    AddUnaryHandler<Request, Response>(
        name, access, [this, method](Call& call, const Request& request) {
          return RunOnce<Response>(server(), call, nullptr, request, [&] {
            return (Derived<Service>().*method)(call, request);
          });
        });
  }

  // Adds such a change with tensors behind its header, which the method reads.
  template <typename Service, typename Header, typename Response>
  void AddUpload(std::string_view name,
                 absl::StatusOr<Response> (Service::*method)(Call&,
                                                             MessageStream&,
                                                             const Header&),
                 Access access) {
    AddHeaderHandler<Header>(
        name, access,
        [this, method](Call& call, MessageStream& stream,
                       const Header& header) -> absl::Status {
          absl::StatusOr<Response> response =
              RunOnce<Response>(server(), call, &stream, header, [&] {
                return (Derived<Service>().*method)(call, stream, header);
              });
          if (!response.ok()) return response.status();
          return stream.WriteResponse(*response);
        });
  }

  // Adds such a change with tensors behind its answer, a Result, too: the
  // method sends the answer with its ticket.
  template <typename Result, typename Service, typename Header>
  void AddExchange(std::string_view name,
                   absl::Status (Service::*method)(Call&, MessageStream&,
                                                   const Header&, AnswerTicket),
                   Access access) {
    AddHeaderHandler<Header>(
        name, access,
        [this, method](Call& call, MessageStream& stream,
                       const Header& header) {
          return AnswerOnce<Result>(
              server(), call, stream, header, [&](AnswerTicket ticket) {
                return (Derived<Service>().*method)(call, stream, header,
                                                    std::move(ticket));
              });
        });
  }

 private:
  using Handler = std::function<absl::Status(Call&, MessageStream&)>;

  template <typename Service>
  Service& Derived() {
    return static_cast<Service&>(*this);
  }

  // Registers a method of any kind.
  void AddMethod(std::string_view method, Access access, Handler handler);

  // Registers a function that takes one message and returns the answer.
  template <typename Request, typename Response, typename Run>
  void AddUnaryHandler(std::string_view name, Access access, Run run) {
    AddMethod(name, access, [run](Call& call, MessageStream& stream) {
      Request request;
      absl::Status read = stream.ReadRequest(request);
      if (!read.ok()) return read;
      absl::StatusOr<Response> response = run(call, request);
      if (!response.ok()) return response.status();
      return stream.WriteResponse(*response);
    });
  }

  // Registers a function that takes a header, and the stream behind it.
  template <typename Header, typename Run>
  void AddHeaderHandler(std::string_view name, Access access, Run run) {
    AddMethod(name, access, [run](Call& call, MessageStream& stream) {
      Header header;
      absl::Status read = stream.ReadHeader(header);
      return read.ok() ? run(call, stream, header) : read;
    });
  }

  grpc::Status Serve(std::string_view method, Access access,
                     const Handler& handler, grpc::ServerContext& context,
                     MessageStream::Stream& stream);

  const std::string service_;
  Surroundings& surroundings_;
  std::deque<std::string> paths_;  // gRPC keeps pointers to them.
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_DECORATED_SERVICE_H_
