// Accepts connections whose principal is the account that connects.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_ACCOUNT_ACCEPTOR_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_ACCOUNT_ACCEPTOR_H_

#include <grpcpp/server_builder.h>
#include <sys/types.h>

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/descriptor.h"
#include "server/rpc/transport/listen.h"
#include "server/rpc/transport/listener.h"

namespace backboned::rpc {

// Accepts the connections of Unix sockets, asks the kernel whose process is at
// the other end, and hands them to gRPC by a door of that account: gRPC tells
// the door of a call, and nothing else of its connection. The server's own
// account and root are the local principal.
class AccountAcceptor {
 public:
  // The most accounts in the life of a server: each has a door from the first
  // time on that it connects.
  static constexpr size_t kMostAccounts = 1024;

  // Adds doors to a server, to which it hands connections once it is started.
  explicit AccountAcceptor(grpc::ServerBuilder& builder);

  // Ends.
  ~AccountAcceptor();

  // Listens on a claimed Unix socket. Returns kInvalidArgument, with the
  // system's words, if that cannot be.
  absl::Status Listen(ListenAddress address);

  // Accepts from now on, in a thread of its own.
  void Start();

  // Stops to listen and to accept. Connections stay.
  void End();

 private:
  struct Door {
    std::shared_ptr<Announcer> announcer;
    std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor;
  };

  void AcceptAll();
  void Accept(int listener);
  absl::StatusOr<Door*> DoorOf(uid_t account);

  std::vector<Descriptor> listeners_;
  Descriptor end_;  // An eventfd; readable at the end.
  std::thread thread_;
  // The following belong to the thread.
  std::vector<Door> doors_;
  // A number may become another account's, which has another name, and door.
  std::map<std::pair<uid_t, std::string>, Door*> accounts_;
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_ACCOUNT_ACCEPTOR_H_
