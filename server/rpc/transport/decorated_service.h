// Serves RPCs, each inside the decorator.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_DECORATED_SERVICE_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_DECORATED_SERVICE_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/task.h"
#include "proto/wire/message.h"
#include "server/callers/access.h"
#include "server/callers/answer_log.h"
#include "server/instances/instance.h"
#include "server/rpc/transport/call.h"
#include "server/rpc/transport/call_order.h"
#include "server/rpc/transport/call_stream.h"
#include "server/rpc/transport/completion.h"
#include "server/rpc/transport/decorator.h"
#include "server/rpc/transport/gate.h"
#include "server/rpc/transport/message_stream.h"
#include "server/rpc/transport/method.h"
#include "server/rpc/transport/once.h"
#include "server/rpc/transport/queued_service.h"
#include "server/server.h"

namespace backboned::rpc {

// A gRPC service whose methods are registered by name and all run inside the
// decorator, as RPCs of their own and in streams of calls. A method is a
// coroutine: no call has a thread.
//
// Our own code decodes the messages: generated deserialisers make an
// undecodable one look like a half-close.
class DecoratedService : public QueuedService {
 protected:
  // `service`: the full name, `backboned.v1.BackboneService`. `surroundings`
  // must outlive the service.
  DecoratedService(std::string_view service, Surroundings& surroundings);

  Server& server() const { return surroundings_.server; }
  const Gate& gate() const { return surroundings_.gate; }

  // Finds the instance `name` for a method that has `access` to it, and tells
  // the log. Every instance that a request names is found here, so that rights
  // have one door. It may sleep: its State may have no memory.
  //
  // Returns kNotFound (kInstanceNotFound), also of an instance that the caller
  // may not read, or as CheckAccess.
  absl::StatusOr<std::shared_ptr<Instance>> Find(Call& call,
                                                 const std::string& name,
                                                 Access access);

  // Does the same, and wakes the instance, which does not fall asleep as long
  // as the caller has it. Without `access`, that of the method's registration.
  // Returns the errors of Server::Wake besides.
  Task<absl::StatusOr<std::shared_ptr<Instance>>> Resolve(
      Call& call, const std::string& name, Access access);
  Task<absl::StatusOr<std::shared_ptr<Instance>>> Resolve(
      Call& call, const std::string& name) {
    return Resolve(call, name, call.access());
  }

  // Returns kPermissionDenied (kNotPermitted) if the caller may not have
  // `access` to an instance that Resolve found, or, for kWrite,
  // kFailedPrecondition (kReadOnly).
  static absl::Status CheckAccess(const Call& call, const Instance& instance,
                                  Access access);

  // The following register a method of a derived class under its name, with the
  // access that it has to the instance in its request. The method's type tells
  // the messages that it reads and answers with.

  // Adds a method that answers with tensors, which it sends itself.
  template <typename Service, typename Request>
  void AddDownload(std::string_view name,
                   Task<absl::Status> (Service::*method)(Call&, MessageStream&,
                                                         const Request&),
                   Access access) {
    AddMethod<Request>(
        name, access,
        [this, method](Call& call,
                       MessageStream& stream) -> Task<absl::Status> {
          Request request;
          absl::Status read = co_await stream.ReadRequest(request);
          if (!read.ok()) co_return read;
          co_return co_await (Derived<Service>().*method)(call, stream,
                                                          request);
        });
  }

  // Adds a method with one message each way.
  template <typename Service, typename Request, typename Response>
  void AddUnary(
      std::string_view name,
      Task<absl::StatusOr<Response>> (Service::*method)(Call&, const Request&),
      Access access) {
    AddUnaryHandler<Request, Response>(
        name, access, [this, method](Call& call, const Request& request) {
          return (Derived<Service>().*method)(call, request);
        });
  }

  // Adds a unary change, which a retry with its request id does not repeat.
  template <typename Service, typename Request, typename Response>
  void AddChange(
      std::string_view name,
      Task<absl::StatusOr<Response>> (Service::*method)(Call&, const Request&),
      Access access) {
    AddUnaryHandler<Request, Response>(
        name, access,
        [this, method](Call& call, const Request& request)
            -> Task<absl::StatusOr<Response>> {
          const auto change = [&] {
            return (Derived<Service>().*method)(call, request);
          };
          co_return co_await RunOnce<Response>(server(), call, nullptr, request,
                                               change);
        });
  }

  // Adds such a change with tensors behind its header, which the method reads.
  template <typename Service, typename Header, typename Response>
  void AddUpload(std::string_view name,
                 Task<absl::StatusOr<Response>> (Service::*method)(
                     Call&, MessageStream&, const Header&),
                 Access access) {
    AddHeaderHandler<Header>(
        name, access,
        [this, method](Call& call, MessageStream& stream,
                       const Header& header) -> Task<absl::Status> {
          const auto change = [&] {
            return (Derived<Service>().*method)(call, stream, header);
          };
          absl::StatusOr<Response> response = co_await RunOnce<Response>(
              server(), call, &stream, header, change);
          if (!response.ok()) co_return response.status();
          co_return co_await stream.WriteResponse(*response);
        });
  }

  // Adds such a change with tensors behind its answer, a Result, too: the
  // method sends the answer with its ticket.
  template <typename Result, typename Service, typename Header>
  void AddExchange(std::string_view name,
                   Task<absl::Status> (Service::*method)(Call&, MessageStream&,
                                                         const Header&,
                                                         AnswerTicket),
                   Access access) {
    AddHeaderHandler<Header>(
        name, access,
        [this, method](Call& call, MessageStream& stream,
                       const Header& header) -> Task<absl::Status> {
          const auto run = [&](AnswerTicket ticket) {
            return (Derived<Service>().*method)(call, stream, header,
                                                std::move(ticket));
          };
          co_return co_await AnswerOnce<Result>(server(), call, stream, header,
                                                run);
        });
  }

  // Adds the method that carries calls of all the others that CallsRequest has
  // a header for. Add it last.
  void AddCalls(std::string_view name);

 private:
  using Handler = decltype(Method::handler);

  template <typename Service>
  Service& Derived() {
    return static_cast<Service&>(*this);
  }

  // Returns what a call works on whose Header is in `part`.
  template <typename Header>
  static CallOrder::Work WorkOf(const wire::Message& part, Access access) {
    Header header;
    if (!part.ParseHeader(header).ok()) return {};
    CallOrder::Work work = {.changes = access == Access::kWrite};
    if constexpr (requires { header.instance(); }) {
      work.instance = header.instance();
    }
    if constexpr (requires { header.training(); }) {
      work.changes |= header.training() || !header.batch_norm().empty();
    }
    if constexpr (requires { header.accumulate(); }) {
      work.changes |= header.accumulate();
    }
    return work;
  }

  // Registers a method of any kind, whose request begins with a Header.
  template <typename Header>
  void AddMethod(std::string_view name, Access access, Handler handler) {
    Register({.name = std::string(name),
              .access = access,
              .handler = std::move(handler),
              .work = [access](const wire::Message& part) {
                return WorkOf<Header>(part, access);
              }});
  }

  // Registers a function that takes one message and gives the answer.
  template <typename Request, typename Response, typename Run>
  void AddUnaryHandler(std::string_view name, Access access, Run run) {
    AddMethod<Request>(
        name, access,
        [run](Call& call, MessageStream& stream) -> Task<absl::Status> {
          Request request;
          absl::Status read = co_await stream.ReadRequest(request);
          if (!read.ok()) co_return read;
          absl::StatusOr<Response> response = co_await run(call, request);
          if (!response.ok()) co_return response.status();
          co_return co_await stream.WriteResponse(*response);
        });
  }

  // Registers a function that takes a header, and the stream behind it.
  template <typename Header, typename Run>
  void AddHeaderHandler(std::string_view name, Access access, Run run) {
    AddMethod<Header>(
        name, access,
        [run](Call& call, MessageStream& stream) -> Task<absl::Status> {
          Header header;
          absl::Status read = co_await stream.ReadHeader(header);
          if (!read.ok()) co_return read;
          co_return co_await run(call, stream, header);
        });
  }

  void Register(Method method);
  Task<absl::Status> ServeRpc(size_t index, Rpc& rpc) override;
  Task<absl::Status> ServeCalls(const Method& method, Rpc& rpc, Call& call);

  Surroundings& surroundings_;
  std::deque<Method> methods_;
  CallStream::Methods streamed_;
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_DECORATED_SERVICE_H_
