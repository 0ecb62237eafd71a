// Reads and writes the headers and tensors of one call.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_MESSAGE_STREAM_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_MESSAGE_STREAM_H_

#include <google/protobuf/message_lite.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/task.h"
#include "proto/wire/tensor_writer.h"
#include "server/rpc/transport/gate.h"

namespace backboned::rpc {

// The bytes of an answer that come while it is written.
class LaterBytes {
 public:
  virtual ~LaterBytes() = default;

  // Returns the number of all of them.
  virtual int64_t bytes() const = 0;

  // Gives the next ones, some if any are left.
  virtual Task<absl::StatusOr<std::vector<wire::Payload>>> Next() = 0;
};

// Reads a request and writes an answer: a header and the bytes of tensors (see
// proto/backboned/v1/tensor.proto), or one plain message. They are an RPC's own
// (RpcStream), or a call's of a stream of calls (StreamedCall).
//
// Not thread-safe: belongs to the call's handler.
class MessageStream {
 public:
  virtual ~MessageStream() = default;

  // Keeps the call's place until its end begins: once a client has its answer,
  // the place is free.
  void KeepPlace(Gate::Pass place) { place_ = std::move(place); }

  // Reads the only message of a request.
  //
  // Gives kInvalidArgument unless there is exactly one, which can be decoded.
  virtual Task<absl::Status> ReadRequest(
      google::protobuf::MessageLite& request) = 0;

  // Reads the header of a request with tensors.
  //
  // Gives kInvalidArgument if there is none, or it cannot be decoded.
  virtual Task<absl::Status> ReadHeader(
      google::protobuf::MessageLite& header) = 0;

  // Reads the rest of such a request into `destinations`, back to back.
  //
  // Gives kInvalidArgument (the message names the byte) if the bytes are not
  // exactly those, kCancelled if the client went away or stalled; the content
  // of `destinations` is unspecified then.
  virtual Task<absl::Status> ReadTensors(
      std::vector<std::span<std::byte>> destinations) = 0;

  // Ends the call if it still reads tensors, since a newer attempt of its
  // request has come. Thread-safe.
  virtual void GiveWay() = 0;

  // Writes a plain message, the last one of the call.
  virtual Task<absl::Status> WriteResponse(
      const google::protobuf::MessageLite& response) = 0;

  // Writes a header and the tensors' bytes, without copying large ones, and
  // then those of `later` (null: none), as they come. Keeps the tensors alive
  // until gRPC has sent them. Gives the error of `later`, too.
  virtual Task<absl::Status> WriteTensors(
      const google::protobuf::MessageLite& header,
      std::vector<wire::Payload> tensors, LaterBytes* later) = 0;
  Task<absl::Status> WriteTensors(const google::protobuf::MessageLite& header,
                                  std::vector<wire::Payload> tensors) {
    return WriteTensors(header, std::move(tensors), nullptr);
  }

  // Ends the call with `status`, unless its answer has ended it with OK.
  virtual Task<bool> Finish(absl::Status status) = 0;

 protected:
  void LeavePlace() { place_.reset(); }

  // Awaits what the writer's next message lacks.
  static Task<absl::Status> Complete(wire::TensorWriter& writer,
                                     LaterBytes* later);

 private:
  std::optional<Gate::Pass> place_;
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_MESSAGE_STREAM_H_
