// What the server knows of one call.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_CALL_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_CALL_H_

#include <grpcpp/server_context.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "server/callers/access.h"
#include "server/device/device_worker.h"
#include "server/limits/quotas.h"

namespace backboned::rpc {

// The principal of every caller on a server without tokens.
inline constexpr std::string_view kLocalPrincipal = "local";

// Who calls, until when, and what the log will say of it.
//
// Not thread-safe: belongs to the call's handler.
class Call {
 public:
  // Reads the metadata of `context`, which must outlive the call. Fails with
  // kInvalidArgument if `backboned-session` or `backboned-label` is not 1 to 64
  // characters of [A-Za-z0-9_.-]. Its times are those of `clock`.
  static absl::StatusOr<Call> Create(std::string_view method,
                                     grpc::ServerContext& context,
                                     const Clock& clock);

  const std::string& method() const { return method_; }
  const std::string& principal() const { return principal_; }
  const std::string& session() const { return session_; }  // Empty: none.
  const std::string& label() const { return label_; }      // Empty: none.

  // Who pays for what the call takes.
  Payer payer() const { return {principal_, session_}; }

  // The run that the call's work is of: its label, else its session.
  FlowName flow() const {
    return {principal_, label_.empty() ? session_ : label_};
  }

  // The access that the method has to the instance in its request.
  Access access() const { return access_; }
  void set_access(Access access) { access_ = access; }

  // When the caller stops waiting; infinite if it never does.
  absl::Time deadline() const { return deadline_; }

  // When the server took the call, and how long ago that is.
  absl::Time received() const { return received_; }
  absl::Duration Elapsed() const { return clock_->Now() - received_; }

  // Of all times of the call.
  const Clock& clock() const { return *clock_; }

  // Whether the caller is gone. Asks gRPC's queue, which takes some 30 us: too
  // much for what every call does. Thread-safe.
  bool IsCancelled() const { return context_->IsCancelled(); }

  // kCancelled or kDeadlineExceeded if nobody waits for the answer any more.
  // Takes as long.
  absl::Status CheckWanted() const;

  // Returns how the call ended, which is `status` unless that says that the
  // client cancelled when it only ran out of time: kDeadlineExceeded then.
  absl::Status HowItEnded(const absl::Status& status) const;

  // Ends the call from the server's side. Thread-safe.
  void Cancel() { context_->TryCancel(); }

  // Pays for the memory that the call takes. Null: nobody.
  void set_account(std::shared_ptr<MemoryAccount> account) {
    account_ = std::move(account);
  }
  const std::shared_ptr<MemoryAccount>& account() const { return account_; }

  // A request to a device's worker on behalf of this caller.
  DeviceWorker::Request WorkerRequest(uint64_t lane) const;

  // For the log; handlers fill in what they know.
  struct Record {
    std::string instance;
    std::string request_id;
    int64_t bytes_in = 0;
    int64_t bytes_out = 0;
    DeviceWorker::Times times;
  };
  Record& record() { return record_; }
  const Record& record() const { return record_; }

 private:
  Call(std::string_view method, grpc::ServerContext& context,
       const Clock& clock);

  std::string method_;
  grpc::ServerContext* context_;
  const Clock* clock_;
  std::string principal_;
  std::string session_;
  std::string label_;
  Access access_ = Access::kNone;
  absl::Time received_;
  absl::Time deadline_;
  std::shared_ptr<MemoryAccount> account_;
  Record record_;
};

// Whether `text` is 1 to 64 characters of [A-Za-z0-9_.-]: session, label,
// request id.
bool IsToken(std::string_view text);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_CALL_H_
