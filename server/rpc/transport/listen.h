// Checks and claims the addresses that a server listens on.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_LISTEN_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_LISTEN_H_

#include <sys/un.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/descriptor.h"

namespace backboned::rpc {

// An address to listen on: `unix:/path`, or `host:port` with a name, an IPv4
// address or an IPv6 address in brackets. Port 0: any free port.
struct ListenAddress {
  std::string text;  // In gRPC's form.
  std::string path;  // Of a Unix socket; empty: TCP.
  std::string host;  // Of TCP, without brackets.
  std::string port;

  bool is_unix() const { return !path.empty(); }
};

// Reads an address, or returns kInvalidArgument, which names the mistake.
absl::StatusOr<ListenAddress> ParseListenAddress(std::string_view text);

// Returns the kernel's form of a Unix socket's path.
sockaddr_un UnixAddress(const std::string& path);

// Returns kFailedPrecondition if other machines can reach `address`: if it is
// neither a Unix socket nor only loopback addresses.
absl::Status CheckLocal(const ListenAddress& address);

// The claim on an address on which no other process serves. gRPC itself would
// bind a TCP port twice, and would unlink another server's socket.
class AddressClaim {
 public:
  // Claims `address`. Removes a Unix socket that no process serves any more,
  // and holds a lock file beside it until the claim ends.
  //
  // Returns kUnavailable if another process serves there, kInvalidArgument if
  // it cannot be an address of this machine.
  static absl::StatusOr<AddressClaim> Make(const ListenAddress& address);

  AddressClaim(AddressClaim&& other) noexcept;
  AddressClaim& operator=(AddressClaim&&) = delete;

  // Removes the socket and its lock file.
  ~AddressClaim();

 private:
  AddressClaim(std::string path, int lock)
      : path_(std::move(path)), lock_(lock) {}

  std::string path_;  // Of a Unix socket; empty: TCP, no lock.
  int lock_;          // File descriptor; -1: none.
};

// Listens on an address that is claimed, for whoever accepts without gRPC. A
// Unix socket has the mode 0700. Sets the port that was chosen in place of 0.
//
// Returns a socket, which does not block, for each address that a host has; or
// kInvalidArgument, with the system's words.
absl::StatusOr<std::vector<Descriptor>> ListenOn(ListenAddress& address);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_LISTEN_H_
