#include "server/rpc/transport/streamed_call.h"

#include <grpcpp/support/byte_buffer.h>

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "backboned/v1/backbone_service.pb.h"
#include "proto/wire/unary.h"
#include "server/rpc/convert/timings.h"
#include "server/rpc/transport/completion.h"
#include "server/rpc/transport/status.h"

namespace backboned::rpc {
namespace {

// Returns the fields of a call's last part but for its number.
v1::CallsResponse EndOf(const Call& call, const absl::Status& status) {
  v1::CallsResponse end;
  *end.mutable_status() = ToProto(status);
  *end.mutable_timings() = TimingsOf(call.record().times, call.Elapsed());
  return end;
}

}  // namespace

StreamedCall::StreamedCall(Stream& stream, Call call, std::stop_source stop,
                           wire::Message header, int64_t header_bytes,
                           CallOrder::Work work, uint64_t number,
                           uint64_t after)
    : stream_(stream),
      call_(std::move(call)),
      stop_(std::move(stop)),
      field_(header.header_field()),
      place_{.number = number, .after = after, .work = std::move(work)},
      bytes_in_(header_bytes) {
  early_.push_back(std::move(header));
  stream_.order.Join(place_);
}

StreamedCall::~StreamedCall() {
  stream_.order.End(place_, /*succeeded=*/false);
  if (early_bytes_ > 0) stream_.buffered(-early_bytes_);
}

void StreamedCall::Deliver(wire::Message part, int64_t bytes) {
  int64_t buffered = 0;
  bool has_read;
  {
    absl::MutexLock lock(&mutex_);
    if (has_read_ || parts_ended_) return;
    bytes_in_ += bytes;
    if (reader_ != nullptr) {
      transfer_->Moved(bytes);
      Place(part);
    } else {
      early_.push_back(std::move(part));
      early_bytes_ += bytes;
      buffered = bytes;
    }
    has_read = has_read_;
  }
  if (buffered > 0) stream_.buffered(buffered);
  if (has_read) arrived_.Happen();
}

void StreamedCall::EndParts() {
  bool has_read;
  {
    absl::MutexLock lock(&mutex_);
    parts_ended_ = true;
    FinishReading();
    has_read = has_read_;
  }
  if (has_read) arrived_.Happen();
}

// Places a part's bytes, and notes whether they were the last ones.
void StreamedCall::Place(const wire::Message& part) {
  if (has_read_) return;
  read_ = reader_->Accept(part);
  has_read_ = !read_.ok() || reader_->Finish().ok();
}

// Notes that bytes are missing, if the handler awaits any and none will come.
void StreamedCall::FinishReading() {
  if (reader_ == nullptr || has_read_ || !parts_ended_) return;
  read_ = reader_->Finish();
  has_read_ = true;
}

Task<absl::Status> StreamedCall::ReadRequest(
    google::protobuf::MessageLite& request) {
  absl::Status parsed = co_await ReadHeader(request);
  if (!parsed.ok()) co_return parsed;
  co_return co_await ReadTensors({});
}

Task<absl::Status> StreamedCall::ReadHeader(
    google::protobuf::MessageLite& header) {
  absl::MutexLock lock(&mutex_);
  co_return early_.front().ParseHeader(header);
}

Task<absl::Status> StreamedCall::ReadTensors(
    std::vector<std::span<std::byte>> destinations) {
  wire::TensorReader reader(std::move(destinations));
  absl::Status status = co_await AwaitTensors(reader);
  if (!status.ok()) co_return status;
  co_return co_await AwaitTurn();
}

Task<absl::Status> StreamedCall::AwaitTensors(wire::TensorReader& reader) {
  StallWatchdog::Transfer transfer(stream_.watchdog, [this] { StopSoon(); });
  int64_t buffered;
  bool has_read;
  {
    absl::MutexLock lock(&mutex_);
    reader_ = &reader;
    transfer_ = &transfer;
    for (const wire::Message& part : early_) Place(part);
    early_.clear();
    buffered = std::exchange(early_bytes_, 0);
    FinishReading();
    has_read = has_read_;
  }
  if (buffered > 0) stream_.buffered(-buffered);
  if (!has_read) {
    const std::stop_callback stopped(call_.gone(),
                                     [this] { arrived_.Happen(); });
    Event& arrived = arrived_;
    co_await arrived;
  }
  absl::MutexLock lock(&mutex_);
  reader_ = nullptr;
  transfer_ = nullptr;
  if (has_read_) co_return read_;
  co_return transfer.stalled() ? Stalled() : call_.CheckWanted();
}

// Waits until the call may work.
Task<absl::Status> StreamedCall::AwaitTurn() {
  {
    const std::stop_callback stopped(call_.gone(),
                                     [this] { place_.begin->Happen(); });
    Event& begin = *place_.begin;
    co_await begin;
  }
  absl::Status wanted = call_.CheckWanted();
  if (!wanted.ok()) co_return wanted;
  co_return stream_.order.CheckBegun(place_);
}

// Lets the calls behind this one begin.
void StreamedCall::EndWork(bool succeeded) {
  {
    absl::MutexLock lock(&mutex_);
    has_read_ = true;  // Drops what still comes.
    call_.record().bytes_in = bytes_in_;
  }
  stream_.order.End(place_, succeeded);
}

// Stops the call from a thread that must not run it.
void StreamedCall::StopSoon() {
  Post(stream_.queue, [self = weak_from_this()] {
    if (const auto call = self.lock()) call->Stop();
  });
}

void StreamedCall::GiveWay() {
  absl::MutexLock lock(&mutex_);
  if (reader_ != nullptr && !has_read_) StopSoon();
}

Task<absl::Status> StreamedCall::WriteResponse(
    const google::protobuf::MessageLite& response) {
  co_return co_await WriteTensors(response, {});
}

Task<absl::Status> StreamedCall::WriteTensors(
    const google::protobuf::MessageLite& header,
    std::vector<wire::Payload> tensors, LaterBytes* later) {
  // Later bytes may not come; calls behind this one begin when all are there.
  if (later == nullptr) EndWork(/*succeeded=*/true);
  wire::Frame frame = wire::PartOf(place_.number, field_);
  frame.last = EndOf(call_, absl::OkStatus()).SerializeAsString();
  wire::TensorWriter writer(header, std::move(tensors), wire::kPartChunkBytes,
                            std::move(frame),
                            later == nullptr ? 0 : later->bytes());
  for (bool is_first = true;; is_first = false) {
    writer.set_chunk_bytes(stream_.is_alone() ? wire::kChunkBytes
                                              : wire::kPartChunkBytes);
    if (writer.lacks_bytes()) {
      absl::Status complete = co_await Complete(writer, later);
      if (!complete.ok()) co_return complete;
    }
    std::optional<grpc::ByteBuffer> part = writer.Next();
    if (!part.has_value()) co_return absl::OkStatus();
    if (call_.IsCancelled()) {
      co_return absl::CancelledError("the client cancelled the call");
    }
    finished_ = writer.is_done();
    if (finished_ && later != nullptr) EndWork(/*succeeded=*/true);
    if (finished_) LeavePlace();
    if (!co_await Write(*std::move(part), is_first && finished_)) {
      co_return absl::CancelledError("the client went away");
    }
  }
}

Task<bool> StreamedCall::Finish(absl::Status status) {
  if (finished_) co_return true;
  finished_ = true;
  EndWork(/*succeeded=*/false);
  LeavePlace();
  if (absl::IsCancelled(status) && !ReasonOf(status).has_value()) {
    const absl::Status refusal = stream_.refusal();
    if (!refusal.ok()) status = refusal;  // It is not the client that cancels.
  }
  v1::CallsResponse answer = EndOf(call_, status);
  answer.set_call(place_.number);
  co_return co_await Write(wire::Serialize(answer), /*is_whole=*/true);
}

Task<bool> StreamedCall::Write(grpc::ByteBuffer part, bool is_whole) {
  const auto bytes = static_cast<int64_t>(part.Length());
  const bool written = co_await stream_.writer.Write(std::move(part), is_whole);
  if (written) call_.record().bytes_out += bytes;
  co_return written;
}

}  // namespace backboned::rpc
