#include "client/cpp/calls.h"

#include <google/protobuf/util/time_util.h>
#include <grpc/support/time.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/async_stream.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "backboned/v1/backbone_service.pb.h"
#include "client/cpp/channel.h"
#include "client/cpp/error.h"
#include "proto/wire/tensor_reader.h"
#include "proto/wire/unary.h"

namespace backboned::client {
namespace {

constexpr char kMethod[] = "/backboned.v1.BackboneService/Calls";

// The pauses before a stream is opened again: they double, from the first one.
constexpr absl::Duration kFirstReopening = absl::Milliseconds(100);
constexpr absl::Duration kLongestReopening = absl::Seconds(1);

// A stream that is silent for longer gets an empty part, for proxies.
constexpr absl::Duration kLongestSilence = absl::Seconds(60);

// The longest wait for a write that holds the memory of a call that has ended.
// Then the connection does not move, and the stream ends.
constexpr absl::Duration kLongestLoan = absl::Seconds(1);

// The shortest look for an answer that came while nobody waited, also past the
// call's deadline.
constexpr absl::Duration kLastLook = absl::Milliseconds(10);

constexpr absl::Duration kGoodbye = absl::Seconds(1);

absl::Status Malformed(const absl::Status& status) {
  return absl::InternalError(
      absl::StrCat("the answer is malformed: ", status.message()));
}

absl::Status Closed() {
  return absl::CancelledError("the client has closed its calls");
}

absl::Status StatusOf(const v1::StatusDetails& details) {
  return ToStatus(grpc::Status(static_cast<grpc::StatusCode>(details.code()),
                               details.message(), details.SerializeAsString()));
}

absl::Status NotBegun() {
  v1::ErrorDetail detail;
  detail.set_reason(v1::ERROR_REASON_NOT_BEGUN);
  v1::StatusDetails details;
  details.set_code(static_cast<int>(absl::StatusCode::kAborted));
  details.set_message("the call that this one was to follow did not succeed");
  details.add_details()->PackFrom(detail);
  return StatusOf(details);
}

// Returns whether another stream may serve the calls of one that ended so.
bool MayServeLater(const absl::Status& ended) {
  return ended.ok() || ended.code() == absl::StatusCode::kUnavailable ||
         ended.code() == absl::StatusCode::kCancelled;
}

}  // namespace

// A stream, from its opening to its end.
struct Calls::Stream {
  grpc::ClientContext context;
  std::unique_ptr<
      grpc::ClientAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>>
      rpc;
  grpc::ByteBuffer part;  // The one that is read.
  grpc::Status status;
  absl::Status malformed;  // Why this client ended it.
  uint64_t last = 0;       // The last call's number.
  absl::Time written = absl::Now();
  size_t written_bytes = 0;  // Of the part that is, or was last, written.
  bool is_open = false;
  bool takes_calls = true;
  bool has_answered = false;
  bool is_broken = false;  // It is to end.
  // Operations that are under way.
  bool reads = false;
  bool writes = false;
  bool finishes = false;
};

Calls::Call::Call(Calls& calls, Request request)
    : calls_(calls),
      request_(std::move(request)),
      begun_(absl::Now()),
      deadline_(begun_ + request_.timeout) {}

Calls::Calls(std::shared_ptr<grpc::Channel> channel, const Options& options,
             std::string target)
    : channel_(std::move(channel)),
      options_(options),
      target_(std::move(target)) {}

Calls::~Calls() {
  void* tag = nullptr;
  bool ok = false;
  {
    absl::MutexLock lock(&mutex_);
    half_closes_ = true;
    if (stream_ != nullptr) Advance();
    absl::Time until = absl::Now() + kGoodbye;
    while (stream_ != nullptr) {
      if (queue_.AsyncNext(&tag, &ok, absl::ToChronoTime(until)) ==
          grpc::CompletionQueue::GOT_EVENT) {
        Handle(static_cast<Event>(reinterpret_cast<uintptr_t>(tag)), ok);
      } else {
        stream_->context.TryCancel();
        until = absl::InfiniteFuture();
      }
    }
  }
  queue_.Shutdown();
  while (queue_.Next(&tag, &ok)) {
  }
}

void* Calls::Tag(Event event) {
  return reinterpret_cast<void*>(static_cast<uintptr_t>(event));
}

std::unique_ptr<Calls::Call> Calls::Begin(Request request, const Call* after) {
  auto call = std::make_unique<Call>(*this, std::move(request));
  absl::MutexLock lock(&mutex_);
  if (sent_.empty() && !leads_) NoticeEnd();
  if (after != nullptr) call->after_ = after->outcome_;
  call->place_ = ++last_place_;
  unsent_.emplace(call->place_, call.get());
  if (is_closed_) GiveUp(*call, Closed());
  Advance();
  return call;
}

bool Calls::Flush(Call& call, absl::Time until) {
  absl::MutexLock lock(&mutex_);
  return LeadUntil(call, until, call.deadline_, [&] {
    mutex_.AssertHeld();
    return call.ended_.has_value() || IsWritten(call);
  });
}

// Returns whether gRPC has written all of a call.
bool Calls::IsWritten(const Call& call) const {
  return call.outcome_->number != 0 && stream_ != nullptr && !stream_->writes &&
         !std::ranges::count(sending_, &call);
}

absl::StatusOr<wire::Message> Calls::WaitForResult(Call& call) {
  absl::StatusOr<wire::Message> result = Next(call);
  if (absl::IsOutOfRange(result.status())) {
    return absl::InternalError("the answer is missing");
  }
  if (result.ok() && result->header_field() != call.request_.field) {
    return absl::InternalError("the answer has no result of the call's method");
  }
  return result;
}

absl::Status Calls::Receive(Call& call, wire::Message result,
                            std::vector<std::span<std::byte>> destinations) {
  wire::TensorReader reader(std::move(destinations));
  absl::StatusOr<wire::Message> part = std::move(result);
  while (part.ok()) {
    const absl::Status accepted = reader.Accept(*part);
    if (!accepted.ok()) return Malformed(accepted);
    part = Next(call);
    if (part.ok() && part->has_header()) {
      return absl::InternalError("the answer has two results");
    }
  }
  if (!absl::IsOutOfRange(part.status())) return part.status();
  const absl::Status complete = reader.Finish();
  return complete.ok() ? complete : Malformed(complete);
}

bool Calls::Wait(Call& call, absl::Time until) {
  absl::MutexLock lock(&mutex_);
  const absl::Time deadline = std::max(call.deadline_, absl::Now() + kLastLook);
  return LeadUntil(call, until, deadline, [&] {
    return !call.came_.empty() || call.ended_.has_value();
  });
}

// Handles what comes until `is_done`, at most until `until`; returns whether it
// is. Ends the call at its deadline.
bool Calls::LeadUntil(Call& call, absl::Time until, absl::Time deadline,
                      absl::FunctionRef<bool()> is_done) {
  bool done = false;
  while (true) {
    Advance();
    done = is_done();
    const absl::Time now = absl::Now();
    if (done || now >= until) break;
    if (now >= deadline) {
      GiveUp(call, absl::DeadlineExceededError("the deadline has passed"));
    } else {
      Lead(call, std::min(until, deadline));
    }
  }
  if (!leads_ && !waiting_.empty()) waiting_.front()->changed_.Signal();
  return done;
}

absl::StatusOr<wire::Message> Calls::Next(Call& call) {
  Wait(call, absl::InfiniteFuture());
  absl::MutexLock lock(&mutex_);
  if (!call.came_.empty()) {
    call.has_taken_ = true;
    wire::Message part = std::move(call.came_.front());
    call.came_.pop_front();
    return part;
  }
  if (!call.ended_->ok()) return *call.ended_;
  return absl::OutOfRangeError("the answer has ended");
}

void Calls::Close() {
  absl::MutexLock lock(&mutex_);
  is_closed_ = true;
  while (!sent_.empty()) GiveUp(*sent_.begin()->second, Closed());
  while (!unsent_.empty()) GiveUp(*unsent_.begin()->second, Closed());
  if (stream_ != nullptr) stream_->context.TryCancel();
  if (!leads_ && !waiting_.empty()) waiting_.front()->changed_.Signal();
}

// Handles what has happened while nobody waited: a stream without calls may
// have ended.
void Calls::NoticeEnd() {
  void* tag = nullptr;
  bool ok = false;
  while (stream_ != nullptr &&
         queue_.AsyncNext(&tag, &ok, gpr_time_0(GPR_CLOCK_MONOTONIC)) ==
             grpc::CompletionQueue::GOT_EVENT) {
    Handle(static_cast<Event>(reinterpret_cast<uintptr_t>(tag)), ok);
  }
}

// Waits for something to happen, at most until `until`, and handles it.
void Calls::Lead(Call& call, absl::Time until) {
  if (leads_) {
    waiting_.push_back(&call);
    call.changed_.WaitWithDeadline(&mutex_, until);
    waiting_.remove(&call);
    return;
  }
  until = std::min(until, absl::Now() + kLongestSilence);
  if (stream_ == nullptr) until = std::min(until, reopens_);
  void* tag = nullptr;
  bool ok = false;
  leads_ = true;
  mutex_.Unlock();
  auto next = grpc::CompletionQueue::TIMEOUT;
  const bool came = spin_.Poll([&] {
    next = queue_.AsyncNext(&tag, &ok, gpr_time_0(GPR_CLOCK_MONOTONIC));
    return next != grpc::CompletionQueue::TIMEOUT;
  });
  if (!came) {
    next = queue_.AsyncNext(&tag, &ok, absl::ToChronoTime(until));
    spin_.Woke();
  }
  mutex_.Lock();
  leads_ = false;
  if (next != grpc::CompletionQueue::GOT_EVENT) return;
  Handle(static_cast<Event>(reinterpret_cast<uintptr_t>(tag)), ok);
}

// Ends a call before its answer.
void Calls::GiveUp(Call& call, absl::Status status) {
  if (sent_.contains(call.outcome_->number)) {
    cancelled_.push_back(call.outcome_->number);
  }
  End(call, std::move(status));
}

// Ends the use of a call's memory.
void Calls::Leave(Call& call) {
  absl::MutexLock lock(&mutex_);
  if (!call.ended_) {
    GiveUp(call, absl::CancelledError("the client cancelled the call"));
    Advance();
  }
  const absl::Time end = absl::Now() + kLongestLoan;
  while (!call.loan_.TryEnd()) {
    if (stream_ != nullptr && absl::Now() > end) stream_->context.TryCancel();
    Advance();
    Lead(call, absl::Now() + absl::Milliseconds(10));
  }
  if (!leads_ && !waiting_.empty()) waiting_.front()->changed_.Signal();
}

void Calls::Open() {
  auto stream = std::make_unique<Stream>();
  const absl::Status prepared = AddMetadata(options_, stream->context);
  if (!prepared.ok()) {
    while (!unsent_.empty()) End(*unsent_.begin()->second, prepared);
    return;
  }
  stream_ = std::move(stream);
  // A channel whose server was away waits before it looks again.
  const std::shared_ptr<grpc::Channel> channel =
      failures_ > 0 && !target_.empty()
          ? MakeChannel(target_, options_.credentials)
          : channel_;
  using Factory =
      grpc::internal::ClientAsyncReaderWriterFactory<grpc::ByteBuffer,
                                                     grpc::ByteBuffer>;
  stream_->rpc.reset(Factory::Create(
      channel.get(), &queue_,
      grpc::internal::RpcMethod(
          kMethod, grpc::internal::RpcMethod::BIDI_STREAMING, channel),
      &stream_->context, /*start=*/true, Tag(Event::kStarted)));
}

// Starts what may be started: a stream, a part, the end of a stream.
void Calls::Advance() {
  if (stream_ == nullptr) {
    if (!unsent_.empty() && absl::Now() >= reopens_) Open();
    return;
  }
  Stream& stream = *stream_;
  if (stream.is_broken) {
    if (stream.reads || stream.writes || stream.finishes) return;
    stream.finishes = true;
    stream.rpc->Finish(&stream.status, Tag(Event::kFinished));
    return;
  }
  if (!stream.is_open || stream.writes) return;
  const std::optional<grpc::ByteBuffer> part = NextPart();
  if (part.has_value()) {
    stream.writes = true;
    stream.written = absl::Now();
    stream.written_bytes = part->Length();
    stream.rpc->Write(*part, Tag(Event::kWritten));
  } else if (half_closes_) {
    half_closes_ = false;
    stream.writes = true;
    stream.rpc->WritesDone(Tag(Event::kWritten));
  }
}

// Returns the next part to send: what is short before what is long.
std::optional<grpc::ByteBuffer> Calls::NextPart() {
  if (!cancelled_.empty()) {
    v1::CallsRequest part;
    part.set_call(cancelled_.front());
    part.set_cancel(true);
    cancelled_.pop_front();
    return wire::Serialize(part);
  }
  while (stream_->takes_calls && !unsent_.empty()) {
    Call& call = *unsent_.begin()->second;
    if (call.after_ != nullptr && call.after_->succeeded == false) {
      End(call, NotBegun());
      continue;
    }
    return FirstPart(call);
  }
  while (!sending_.empty()) {
    Call& call = *sending_.front();
    sending_.pop_front();
    call.writer_->set_chunk_bytes(ChunkBytes());
    std::optional<grpc::ByteBuffer> part = call.writer_->Next();
    if (!part.has_value()) continue;
    sending_.push_back(&call);
    return part;
  }
  if (absl::Now() - stream_->written < kLongestSilence) return std::nullopt;
  return wire::Serialize(v1::CallsRequest());
}

// Returns the size of a chunk: small while other calls may wait for its end.
int64_t Calls::ChunkBytes() const {
  return sent_.size() == 1 && unsent_.empty() ? wire::kChunkBytes
                                              : wire::kPartChunkBytes;
}

grpc::ByteBuffer Calls::FirstPart(Call& call) {
  unsent_.erase(call.place_);
  const uint64_t number = ++stream_->last;
  call.outcome_->number = number;
  sent_.emplace(number, &call);
  v1::CallsRequest options;
  if (call.deadline_ != absl::InfiniteFuture()) {
    const absl::Duration left =
        std::max(call.deadline_ - absl::Now(), absl::Nanoseconds(1));
    *options.mutable_timeout() =
        google::protobuf::util::TimeUtil::NanosecondsToDuration(
            absl::ToInt64Nanoseconds(left));
  }
  if (call.after_ != nullptr && !call.after_->succeeded.has_value()) {
    options.set_after(call.after_->number);
  }
  wire::Frame frame = wire::PartOf(number, call.request_.field);
  frame.first = options.SerializeAsString();
  std::vector<wire::Payload> payloads;
  for (const auto bytes : call.request_.tensors) {
    payloads.push_back({bytes, call.loan_.keep_alive()});
  }
  call.writer_.emplace(call.request_.header, std::move(payloads), ChunkBytes(),
                       std::move(frame));
  grpc::ByteBuffer part = *call.writer_->Next();  // There always is one.
  sending_.push_back(&call);
  return part;
}

void Calls::Handle(Event event, bool ok) {
  Stream& stream = *stream_;
  if (!ok && event != Event::kFinished) stream.is_broken = true;
  switch (event) {
    case Event::kStarted:
      stream.is_open = ok;
      break;
    case Event::kRead:
      stream.reads = false;
      if (ok) TellMoved(stream.part.Length());
      if (ok) TakePart(std::exchange(stream.part, grpc::ByteBuffer()));
      break;
    case Event::kWritten:
      stream.writes = false;
      if (ok) TellMoved(std::exchange(stream.written_bytes, 0));
      break;
    case Event::kFinished:
      EndStream();
      break;
  }
  if (stream_ != nullptr && stream.is_open && !stream.reads &&
      !stream.is_broken) {
    stream.reads = true;
    stream.rpc->Read(&stream.part, Tag(Event::kRead));
  }
  Advance();
}

void Calls::TellMoved(size_t bytes) const {
  if (options_.moved) options_.moved(static_cast<int64_t>(bytes));
}

void Calls::TakePart(grpc::ByteBuffer buffer) {
  Stream& stream = *stream_;
  stream.has_answered = true;
  v1::CallsResponse rest;
  absl::StatusOr<wire::Message> part =
      wire::Message::DecodePart(std::move(buffer));
  const absl::Status parsed = part.ok() ? part->ParseRest(rest) : part.status();
  if (!parsed.ok()) {
    stream.malformed = Malformed(parsed);
    stream.context.TryCancel();
    return;
  }
  if (rest.notice() != v1::NOTICE_UNSPECIFIED) stream.takes_calls = false;
  const auto found = sent_.find(rest.call());
  if (found == sent_.end()) return;
  Call& call = *found->second;
  if (part->has_header() || part->has_chunk()) {
    call.came_.push_back(*std::move(part));
  }
  if (rest.has_status()) {
    absl::Status status = StatusOf(rest.status());
    if (ReasonOf(status) == v1::ERROR_REASON_DRAINING && MayRepeat(call)) {
      stream.takes_calls = false;
      SendAgain(call);
      return;
    }
    End(call, std::move(status));
  }
  call.changed_.Signal();
}

// Ends, or sends again, the calls of a stream that has ended.
void Calls::EndStream() {
  absl::Status status = ToStatus(stream_->status);
  if (!stream_->malformed.ok()) status = stream_->malformed;
  failures_ = stream_->has_answered ? 0 : failures_ + 1;
  stream_.reset();
  cancelled_.clear();
  const bool may_serve_later = MayServeLater(status);
  if (may_serve_later && !status.ok()) {
    status = absl::UnavailableError(
        absl::StrCat("the connection was lost: ", status.message()));
  }
  std::vector<Call*> calls;
  for (const auto& [number, call] : sent_) calls.push_back(call);
  for (Call* const call : calls) {
    if (may_serve_later && MayRepeat(*call)) {
      SendAgain(*call);
    } else {
      End(*call, status.ok() ? absl::UnavailableError("the stream has ended")
                             : status);
    }
  }
  calls.clear();
  for (const auto& [place, call] : unsent_) calls.push_back(call);
  for (Call* const call : calls) {
    if (!may_serve_later || (!status.ok() && !MayRepeat(*call))) {
      End(*call, status);
    }
  }
  reopens_ = absl::InfinitePast();
  if (failures_ > 0) {
    reopens_ = absl::Now() +
               std::min(kFirstReopening * (1 << std::min(failures_ - 1, 10)),
                        kLongestReopening);
  }
}

// Takes a call out of its stream, for the next one.
void Calls::SendAgain(Call& call) {
  Forget(call);
  call.came_.clear();
  call.outcome_->number = 0;
  unsent_.emplace(call.place_, &call);
}

void Calls::End(Call& call, absl::Status status) {
  Forget(call);
  if (!status.ok()) call.came_.clear();
  call.outcome_->succeeded = status.ok();
  call.ended_ = std::move(status);
  call.changed_.Signal();
}

// Takes a call off all lists, and what it has not sent back.
void Calls::Forget(Call& call) {
  unsent_.erase(call.place_);
  sent_.erase(call.outcome_->number);
  std::erase(sending_, &call);
  call.writer_.reset();
}

bool Calls::MayRepeat(const Call& call) const {
  return !call.has_taken_ && absl::Now() - call.begun_ < options_.retry_timeout;
}

}  // namespace backboned::client
