// Identifies one call, its caller and its deadline.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_CALL_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_CALL_H_

#include <grpcpp/server_context.h>

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "server/callers/access.h"
#include "server/callers/directory.h"
#include "server/callers/rights.h"
#include "server/device/device_worker.h"
#include "server/instances/instance.h"
#include "server/limits/quotas.h"

namespace backboned::rpc {

// The caller of a call, its deadline, and the fields of its log line.
//
// Not thread-safe, but for what says so: belongs to the call's handler.
class Call {
 public:
  // Reads the metadata of `context`. `gone` is stopped once the caller has
  // gone. Returns kInvalidArgument if `backboned-session` or `backboned-label`
  // is not 1 to 64 characters of [A-Za-z0-9_.-], or the error of `directory`.
  // Times are those of `clock`.
  static absl::StatusOr<Call> Create(std::string_view method,
                                     const grpc::ServerContext& context,
                                     const Identity& identity,
                                     std::stop_token gone,
                                     const Directory& directory,
                                     const Clock& clock);

  // Returns a call of `method` by the caller of this one, a stream of calls:
  // received now, with a deadline and a trace of its own. `gone` is stopped
  // once its end is wanted.
  Call Within(std::string_view method, std::stop_token gone,
              absl::Duration timeout, std::string_view traceparent) const;

  // Asks `directory` for the caller's rights once more. Returns its error.
  absl::Status Recheck(const Directory& directory);

  const std::string& method() const { return method_; }
  const Identity& identity() const { return identity_; }
  const Caller& caller() const { return caller_; }
  const std::string& principal() const { return caller_.principal; }
  const std::string& session() const { return session_; }  // Empty: none.
  const std::string& label() const { return label_; }      // Empty: none.

  // The caller's place in a trace, in the form of W3C's Trace Context. Empty:
  // none, or not of that form.
  const std::string& traceparent() const { return traceparent_; }

  // The payer of all that the call takes.
  Payer payer() const { return {principal(), session_}; }

  // The flow of the call's work: its label's, else its session's.
  FlowName flow() const {
    return {principal(), label_.empty() ? session_ : label_};
  }

  // The access that the method has to the instance in its request.
  Access access() const { return access_; }
  void set_access(Access access) { access_ = access; }

  // The time when the caller stops waiting; infinite if it never does.
  absl::Time deadline() const { return deadline_; }

  // The time when the server took the call, and the time since then.
  absl::Time received() const { return received_; }
  absl::Duration Elapsed() const { return clock_->Now() - received_; }

  // The clock of the call's times.
  const Clock& clock() const { return *clock_; }

  // Tells that the caller has gone. Thread-safe.
  const std::stop_token& gone() const { return gone_; }
  bool IsCancelled() const { return gone_.stop_requested(); }

  // Returns kCancelled or kDeadlineExceeded if the caller no longer waits.
  absl::Status CheckWanted() const;

  // Returns `status` as the call's end, or kDeadlineExceeded if `status` says
  // that the client cancelled and the deadline has passed.
  absl::Status HowItEnded(const absl::Status& status) const;

  // The account that pays for the call's memory. Null: nobody pays.
  void set_account(std::shared_ptr<MemoryAccount> account) {
    account_ = std::move(account);
  }
  const std::shared_ptr<MemoryAccount>& account() const { return account_; }

  // Returns a request to a device's worker on behalf of this caller.
  DeviceWorker::Request WorkerRequest(uint64_t lane) const;

  // The time that devices have worked for the call so far.
  absl::Duration device_time() const { return meter_->time(); }

  // Tells the usage which instance the call is about.
  void set_found(const Instance& instance);

  // Fields of the log line, and of the usage; handlers fill in those that they
  // know.
  struct Record {
    int64_t stream = 0;  // The stream of calls that it came by, or is. 0: none.
    int64_t calls = 0;   // The calls of the stream that it is.
    std::string instance;   // As the caller names it.
    std::string full_name;  // `owner/name`, once it is found.
    std::string uid;
    std::string request_id;
    int64_t bytes_in = 0;
    int64_t bytes_out = 0;
    DeviceWorker::Times times;
    int64_t flops = 0;  // The operations of its work, see Flops.
  };
  Record& record() { return record_; }
  const Record& record() const { return record_; }

 private:
  Call(std::string_view method, std::stop_token gone, absl::Duration timeout,
       const Clock& clock);

  std::string method_;
  std::stop_token gone_;
  const Clock* clock_;
  Identity identity_;
  Caller caller_;
  std::string session_;
  std::string label_;
  std::string traceparent_;
  Access access_ = Access::kAny;
  absl::Time received_;
  absl::Time deadline_;
  std::shared_ptr<MemoryAccount> account_;
  std::shared_ptr<WorkMeter> meter_ = std::make_shared<WorkMeter>();
  Record record_;
};

// Returns whether `text` is 1 to 64 characters of [A-Za-z0-9_.-], as sessions,
// labels and request ids are.
bool IsToken(std::string_view text);

// Returns whether `text` is a traceparent of W3C's Trace Context:
// VERSION-TRACE-PARENT-FLAGS, of 2, 32, 16 and 2 lower-case hexadecimal digits,
// where the version is not ff, and trace and parent are not 0.
bool IsTraceparent(std::string_view text);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_CALL_H_
