// An address that a server listens on, and who calls there.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_LISTENER_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_LISTENER_H_

#include <grpcpp/security/auth_metadata_processor.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_context.h>
#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/callers/directory.h"
#include "server/rpc/transport/listen.h"

namespace backboned::rpc {

// An address, with the options that --listen gives it. The address decides who
// calls there, and no client does: its file's permissions say who can connect.
struct Listener {
  ListenAddress address;

  // The principal of every caller. Empty: the local one.
  std::string principal = {};
  // The callers are fronts, which name the principal of each call, or of each
  // stream of calls, in the metadata `backboned-principal`.
  bool is_front = false;
  // The account that connects decides: see AccountAcceptor.
  bool by_account = false;

  // Answers HTTP about the server, and takes no calls: see AdminServer.
  bool is_admin = false;

  // Of a Unix socket: the account and the group that may connect besides the
  // server's own account, and the file's mode. Absent: none, and 0700. A
  // listener for calls with one of them has a principal.
  std::optional<uid_t> user = {};
  std::optional<gid_t> group = {};
  std::optional<mode_t> mode = {};
};

// Reads the texts of --listen: ADDRESS[,OPTION=VALUE]..., several of which may
// be in one text, separated by commas, too. The options are `principal`,
// `principal-from` (`account` or `backboned-principal`), `serve` (`admin`),
// `user`, `group` and `mode` (octal).
//
// Returns kInvalidArgument, which names the mistake; also if there is no such
// account or group on this machine, or no listener takes calls.
absl::StatusOr<std::vector<Listener>> ParseListeners(
    const std::vector<std::string>& texts);

// Tells whose connections are, each at its first call. Thread-safe.
class Announcer : public grpc::AuthMetadataProcessor {
 public:
  // Tells a principal or an account.
  void SetIdentity(const Identity& identity);

  // Tells that a front is at the other end.
  void SetFront();

  bool IsBlocking() const override { return false; }
  grpc::Status Process(const InputMetadata&, grpc::AuthContext* context,
                       OutputMetadata*, OutputMetadata*) override;

 private:
  absl::Mutex mutex_;  // Guards a connection's context, too, while it is told.
  std::string property_ ABSL_GUARDED_BY(mutex_);
  std::string value_ ABSL_GUARDED_BY(mutex_);
};

// Returns credentials for Unix sockets that need nothing of a client. Those of
// a listener, or of an announcer, let IdentityOf know whose a connection is.
std::shared_ptr<grpc::ServerCredentials> CredentialsOf(
    const Listener& listener);
std::shared_ptr<grpc::ServerCredentials> CredentialsOf(
    std::shared_ptr<Announcer> announcer);

// Lets those connect whom the listener names, and nobody else, once its socket
// exists. Until then the process's umask decides, or the folder's ACL.
//
// Returns kFailedPrecondition if the system refuses.
absl::Status Admit(const Listener& listener);

// Returns who calls. A front tells of a token, too, by the metadata
// `backboned-token-serial` and `backboned-token-expires` (seconds since 1970).
//
// Returns kUnauthenticated (kIdentityRefused) if a front names no principal,
// several, or one that cannot be, or does so with a token's numbers; if anybody
// else names one; or if nobody announced one where an Announcer should have.
absl::StatusOr<Identity> IdentityOf(const grpc::ServerContext& context);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_LISTENER_H_
