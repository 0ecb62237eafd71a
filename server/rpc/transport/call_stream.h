// Serves the calls of one stream.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_CALL_STREAM_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_CALL_STREAM_H_

#include <grpcpp/alarm.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "backboned/v1/backbone_service.pb.h"
#include "base/task.h"
#include "proto/wire/message.h"
#include "server/limits/continuation.h"
#include "server/rpc/transport/call.h"
#include "server/rpc/transport/completion.h"
#include "server/rpc/transport/decorator.h"
#include "server/rpc/transport/method.h"
#include "server/rpc/transport/streamed_call.h"

namespace backboned::rpc {

// Reads the parts of a stream's calls, begins each call at its header, and ends
// the stream: with its last call once the client has half-closed, the server
// drains, the stream is old, its token is about to expire or its caller has
// other rights; with the work that has begun if the client is gone or may not
// call any more.
class CallStream : private CallStreams::Member {
 public:
  // By the field of their headers.
  using Methods = std::map<uint32_t, const Method*>;

  // The most calls under way, and the most bytes of parts that came before
  // their handlers asked for them. Over them the stream reads no further.
  static constexpr size_t kMostCalls = 1024;
  static constexpr int64_t kMostBufferedBytes = int64_t{8} << 20;

  // The arguments must outlive the stream. `call` is the stream's own.
  CallStream(Rpc& rpc, Call& call, Surroundings& surroundings,
             const Methods& methods);

  // Serves the stream and gives how it ended.
  Task<absl::Status> Serve();

 private:
  using Calls = std::map<uint64_t, std::shared_ptr<StreamedCall>>;

  Task<absl::Status> ServeCalls();
  Detached ReadParts();
  Detached AwaitAge();
  absl::Status Take(grpc::ByteBuffer buffer);
  absl::Status Begin(wire::Message part, int64_t bytes,
                     const v1::CallsRequest& rest);
  absl::Status CheckTaken(const Method* method, Call& call);
  absl::Status Refusal();
  CallOrder::Work WorkOf(const Method* method, const wire::Message& part) const;
  Detached ServeOne(std::shared_ptr<StreamedCall> call, const Method* method,
                    absl::Status taken);
  Detached Notify(v1::Notice notice);
  void EndWithLastCall(v1::Notice notice);
  void Drain() override { EndWithLastCall(v1::NOTICE_DRAINING); }
  void Recheck() override;
  void StopAll();
  void Leave(std::shared_ptr<StreamedCall> call);
  void ChangeBuffered(int64_t bytes);
  bool IsAlone();
  std::shared_ptr<StreamedCall> Find(uint64_t number);
  std::shared_ptr<Event> AwaitedRoom();
  bool HasRoom() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool IsOver() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void GoOn(int64_t let_go = 0);

  Rpc& rpc_;
  Call& call_;
  Surroundings& surroundings_;
  const Methods& methods_;
  StreamedCall::Stream shared_;
  uint64_t last_ = 0;  // The last call's number; the reading's own.
  grpc::Alarm age_;

  absl::Mutex mutex_;
  // The last one that was given.
  v1::Notice notice_ ABSL_GUARDED_BY(mutex_) = v1::NOTICE_UNSPECIFIED;
  Calls calls_ ABSL_GUARDED_BY(mutex_);
  int64_t notices_ ABSL_GUARDED_BY(mutex_) = 0;  // On their way.
  int64_t buffered_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::shared_ptr<Event> room_ ABSL_GUARDED_BY(mutex_);  // If the stream waits.
  bool reads_ ABSL_GUARDED_BY(mutex_) = true;
  bool ends_with_last_call_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  // Threads that go on to use the stream, though its calls may have ended.
  int64_t holds_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;    // `over_` happens, or has.
  absl::Status read_ ABSL_GUARDED_BY(mutex_);     // The end of the reading.
  absl::Status refused_ ABSL_GUARDED_BY(mutex_);  // Of a caller, meanwhile.
  Event over_;  // Nothing is left to answer, and nothing more is taken.
  Event reads_ended_;
  Event age_ended_;
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_CALL_STREAM_H_
