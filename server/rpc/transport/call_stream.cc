#include "server/rpc/transport/call_stream.h"

#include <google/protobuf/util/time_util.h>
#include <grpc/grpc.h>

#include <algorithm>
#include <optional>
#include <stop_token>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/errors.h"
#include "proto/wire/unary.h"
#include "server/limits/catching.h"
#include "server/rpc/transport/call_log.h"
#include "server/rpc/transport/status.h"

namespace backboned::rpc {
namespace {

// The time before its token expires when a client shall open another stream.
constexpr absl::Duration kMoveBeforeExpiry = absl::Seconds(30);

absl::Duration TimeoutOf(const v1::CallsRequest& request) {
  if (!request.has_timeout()) return absl::InfiniteDuration();
  return absl::Seconds(request.timeout().seconds()) +
         absl::Nanoseconds(request.timeout().nanos());
}

}  // namespace

CallStream::CallStream(Rpc& rpc, Call& call, Surroundings& surroundings,
                       const Methods& methods)
    : rpc_(rpc),
      call_(call),
      surroundings_(surroundings),
      methods_(methods),
      shared_{.queue = rpc.queue,
              .watchdog = surroundings.watchdog,
              .writer = PartWriter(rpc, surroundings.watchdog),
              .is_alone = [this] { return IsAlone(); },
              .refusal = [this] { return Refusal(); },
              .buffered = [this](int64_t bytes) { ChangeBuffered(bytes); }} {
  call_.record().stream = surroundings.streams.NextNumber();
}

Task<absl::Status> CallStream::Serve() {
  const absl::StatusOr<Sessions::Call> session =
      surroundings_.server.sessions().Begin(call_.session(), call_.principal(),
                                            call_.received());
  const absl::StatusOr<Budget::Reservation> place =
      session.ok() ? surroundings_.streams.Enter(call_.payer(), *this)
                   : session.status();
  absl::Status status = place.status();
  if (place.ok()) status = co_await ServeCalls();
  const grpc::Status ended = ToGrpc(status);
  const bool finished =
      co_await Operation([&](void* tag) { rpc_.stream.Finish(ended, tag); });
  if (place.ok()) {
    surroundings_.streams.Leave(*this);
    Event& reads_ended = reads_ended_;
    co_await reads_ended;  // The end of the stream ends them.
  }
  if (status.ok() && !finished) {
    status = absl::CancelledError("the client went away");
  }
  LogCall(call_, status, surroundings_.metrics);
  co_return status;
}

// Serves calls until none is left to answer, and no more will be taken.
Task<absl::Status> CallStream::ServeCalls() {
  const std::stop_callback gone(call_.gone(), [this] { StopAll(); });
  ReadParts();
  AwaitAge();
  Event& over = over_;
  co_await over;
  age_.Cancel();
  Event& age_ended = age_ended_;
  co_await age_ended;
  absl::MutexLock lock(&mutex_);
  co_return refused_.ok() ? read_ : refused_;
}

Detached CallStream::ReadParts() {
  absl::Status status;
  while (status.ok()) {
    while (const std::shared_ptr<Event> room = AwaitedRoom()) {
      Event& awaited = *room;
      co_await awaited;
    }
    grpc::ByteBuffer buffer;
    const bool came =
        co_await Operation([&](void* tag) { rpc_.stream.Read(&buffer, tag); });
    if (!came) break;
    status = RunCatching([&] { return Take(std::move(buffer)); });
  }
  if (grpc_call_failed_before_recv_message(rpc_.context.c_call()) != 0) {
    rpc_.gone.request_stop();
  }
  if (!status.ok()) StopAll();
  std::vector<std::shared_ptr<StreamedCall>> left;
  {
    absl::MutexLock lock(&mutex_);
    read_ = status;
    for (const auto& [number, call] : calls_) left.push_back(call);
  }
  for (const auto& call : left) call->EndParts();
  left.clear();
  {
    absl::MutexLock lock(&mutex_);
    reads_ = false;
  }
  GoOn();
  reads_ended_.Happen();
}

absl::Status CallStream::Refusal() {
  absl::MutexLock lock(&mutex_);
  return refused_;
}

// Takes a part, and returns an error that ends the stream.
absl::Status CallStream::Take(grpc::ByteBuffer buffer) {
  absl::Status refusal = Refusal();
  if (!refusal.ok()) return refusal;
  const auto bytes = static_cast<int64_t>(buffer.Length());
  call_.record().bytes_in += bytes;
  absl::StatusOr<wire::Message> part =
      wire::Message::DecodePart(std::move(buffer));
  if (!part.ok()) return part.status();
  v1::CallsRequest rest;
  absl::Status parsed = part->ParseRest(rest);
  if (!parsed.ok()) return parsed;
  if (part->has_header()) return Begin(*std::move(part), bytes, rest);
  const std::shared_ptr<StreamedCall> call = Find(rest.call());
  if (call == nullptr) return absl::OkStatus();
  if (part->has_chunk()) call->Deliver(*std::move(part), bytes);
  if (rest.cancel()) call->Stop();
  return absl::OkStatus();
}

// Begins a call.
absl::Status CallStream::Begin(wire::Message part, int64_t bytes,
                               const v1::CallsRequest& rest) {
  if (rest.call() <= last_) {
    return Malformed(absl::StrCat("the header of call ", rest.call(),
                                  " comes behind that of call ", last_));
  }
  if (rest.after() >= rest.call()) {
    return Malformed(absl::StrCat("call ", rest.call(), " is to follow call ",
                                  rest.after(), ", which is not before it"));
  }
  last_ = rest.call();
  const auto found = methods_.find(part.header_field());
  const Method* const method =
      found == methods_.end() ? nullptr : found->second;
  std::stop_source stop;
  Call call =
      call_.Within(method == nullptr ? "?" : method->name, stop.get_token(),
                   TimeoutOf(rest), rest.traceparent());
  call.record().stream = call_.record().stream;
  CallOrder::Work work = WorkOf(method, part);
  const auto streamed = std::make_shared<StreamedCall>(
      shared_, std::move(call), std::move(stop), std::move(part), bytes,
      std::move(work), rest.call(), rest.after());
  bool stopped;
  {
    absl::MutexLock lock(&mutex_);
    if (IsOver()) return absl::OkStatus();  // The client sends it again.
    calls_.emplace(rest.call(), streamed);
    stopped = stopped_;  // By another thread, which has not seen this call.
  }
  ++call_.record().calls;
  if (stopped || rest.cancel()) streamed->Stop();
  ServeOne(streamed, method, CheckTaken(method, streamed->call()));
  return absl::OkStatus();
}

// Returns why the stream does not begin a call that has come.
absl::Status CallStream::CheckTaken(const Method* method, Call& call) {
  mutex_.Lock();
  const v1::Notice notice = notice_;
  mutex_.Unlock();
  if (notice == v1::NOTICE_MOVE) {
    return Error(absl::StatusCode::kUnavailable, Reason::kDraining,
                 "the stream takes no more calls; open another one");
  }
  if (method != nullptr) return call.Recheck(surroundings_.server.directory());
  return absl::UnimplementedError(
      "the server does not know the call's header; it may be older than the "
      "client");
}

// Returns what a call works on, by the instance's full name.
CallOrder::Work CallStream::WorkOf(const Method* method,
                                   const wire::Message& part) const {
  if (method == nullptr) return {};
  CallOrder::Work work = method->work(part);
  if (work.instance.empty()) return work;
  const absl::StatusOr<std::shared_ptr<Instance>> instance =
      surroundings_.server.registry().Find(work.instance, call_.caller());
  if (instance.ok()) work.instance = (*instance)->FullName();
  return work;
}

Detached CallStream::ServeOne(std::shared_ptr<StreamedCall> call,
                              const Method* method, absl::Status taken) {
  if (taken.ok()) {
    co_await ServeCall(surroundings_, *method, call->call(), *call);
  } else {
    co_await call->Finish(taken);
    LogCall(call->call(), taken, surroundings_.metrics);
  }
  Leave(std::move(call));
}

// Tells the client something about the stream.
Detached CallStream::Notify(v1::Notice notice) {
  {
    absl::MutexLock lock(&mutex_);
    if (IsOver()) co_return;
    ++notices_;
  }
  v1::CallsResponse part;
  part.set_notice(notice);
  co_await shared_.writer.Write(wire::Serialize(part), /*is_whole=*/true);
  {
    absl::MutexLock lock(&mutex_);
    --notices_;
    ends_with_last_call_ = true;
  }
  GoOn();
}

void CallStream::EndWithLastCall(v1::Notice notice) {
  {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(notice_, notice) == notice) return;
  }
  Notify(notice);
}

Detached CallStream::AwaitAge() {
  const absl::Time now = absl::Now();
  absl::Time end = now + surroundings_.server.limits().max_stream_age;
  // The next stream's token may be a new one; if it is not, that one stays.
  const absl::Time soon = call_.identity().expires - kMoveBeforeExpiry;
  if (soon > now) end = std::min(end, soon);
  const bool is_old = co_await Operation(
      [&](void* tag) { age_.Set(&rpc_.queue, absl::ToChronoTime(end), tag); });
  if (is_old) EndWithLastCall(v1::NOTICE_MOVE);
  age_ended_.Happen();
}

void CallStream::Recheck() {
  const absl::StatusOr<Caller> caller =
      surroundings_.server.directory().Find(call_.identity(), absl::Now());
  if (caller.ok()) {
    // Its calls know of the change; what else the stream has is of before.
    if (*caller != call_.caller()) EndWithLastCall(v1::NOTICE_MOVE);
    return;
  }
  {
    absl::MutexLock lock(&mutex_);
    if (!refused_.ok()) return;
    refused_ = caller.status();
    ends_with_last_call_ = true;
  }
  StopAll();
}

void CallStream::StopAll() {
  std::vector<std::shared_ptr<StreamedCall>> calls;
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
    ++holds_;
    for (const auto& [number, call] : calls_) calls.push_back(call);
  }
  for (const auto& call : calls) call->Stop();
  calls.clear();
  GoOn(/*let_go=*/1);
}

// Forgets a call that has ended. The stream may end with it.
void CallStream::Leave(std::shared_ptr<StreamedCall> call) {
  {
    absl::MutexLock lock(&mutex_);
    call_.record().bytes_out += call->call().record().bytes_out;
    calls_.erase(call->number());
    ++holds_;
  }
  call.reset();
  GoOn(/*let_go=*/1);
}

void CallStream::ChangeBuffered(int64_t bytes) {
  {
    absl::MutexLock lock(&mutex_);
    buffered_bytes_ += bytes;
  }
  if (bytes < 0) GoOn();
}

bool CallStream::IsAlone() {
  absl::MutexLock lock(&mutex_);
  return calls_.size() == 1;
}

std::shared_ptr<StreamedCall> CallStream::Find(uint64_t number) {
  absl::MutexLock lock(&mutex_);
  const auto found = calls_.find(number);
  return found == calls_.end() ? nullptr : found->second;
}

bool CallStream::HasRoom() const {
  return stopped_ ||
         (calls_.size() < kMostCalls && buffered_bytes_ < kMostBufferedBytes);
}

// Returns what happens when the stream may read on; null: it may now.
std::shared_ptr<Event> CallStream::AwaitedRoom() {
  absl::MutexLock lock(&mutex_);
  if (HasRoom()) return nullptr;
  room_ = std::make_shared<Event>();
  return room_;
}

bool CallStream::IsOver() const {
  return ended_ || ((!reads_ || ends_with_last_call_) && calls_.empty() &&
                    notices_ == 0 && holds_ == 0);
}

// Lets go of holds, and lets the stream read on, or end, if it may now. At the
// end another thread may destroy it: only the one that ends it touches it then.
void CallStream::GoOn(int64_t let_go) {
  std::shared_ptr<Event> room;
  bool is_over;
  {
    absl::MutexLock lock(&mutex_);
    holds_ -= let_go;
    if (HasRoom()) room.swap(room_);
    is_over = !ended_ && IsOver();
    ended_ |= is_over;
  }
  // Reading is the queue's, whoever made room.
  if (room != nullptr) Post(rpc_.queue, [room] { room->Happen(); });
  if (is_over) over_.Happen();
}

}  // namespace backboned::rpc
