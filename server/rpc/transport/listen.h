// Where a server listens, and whether it may.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_LISTEN_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_LISTEN_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace backboned::rpc {

// An address to listen on: `unix:/path`, or `host:port` with a name, an IPv4
// address or an IPv6 address in brackets. Port 0: any free one.
struct ListenAddress {
  std::string text;  // As gRPC takes it.
  std::string path;  // Of a Unix socket; empty: TCP.
  std::string host;  // Of TCP, without brackets.
  std::string port;

  bool is_unix() const { return !path.empty(); }
};

// Reads an address; kInvalidArgument says what is wrong with it.
absl::StatusOr<ListenAddress> ParseListenAddress(std::string_view text);

// Returns kFailedPrecondition if `address` can be reached from other machines:
// not a Unix socket, and not only addresses of the loopback interface.
absl::Status CheckLocal(const ListenAddress& address);

// The claim on an address: nobody else serves there. gRPC itself would bind a
// TCP port twice, and would unlink another server's socket.
class AddressClaim {
 public:
  // Claims `address`. A Unix socket that nobody serves any more is removed; a
  // lock file beside it is held until the claim ends.
  //
  // kUnavailable if somebody serves there, kInvalidArgument if it cannot be an
  // address of this machine.
  static absl::StatusOr<AddressClaim> Make(const ListenAddress& address);

  AddressClaim(AddressClaim&& other) noexcept;
  AddressClaim& operator=(AddressClaim&&) = delete;

  // Removes the socket and its lock file.
  ~AddressClaim();

 private:
  AddressClaim(std::string path, int lock)
      : path_(std::move(path)), lock_(lock) {}

  std::string path_;  // Of a Unix socket; empty: TCP, nothing is held.
  int lock_;          // File descriptor; -1: none.
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_LISTEN_H_
