// Makes a call of the data side with buffers: sent bytes are not copied,
// received bytes once, straight to their place.

#ifndef BACKBONED_CLIENT_CPP_CALL_H_
#define BACKBONED_CLIENT_CPP_CALL_H_

#include <google/protobuf/message_lite.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/sync_stream.h>

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cpp/connection.h"
#include "client/cpp/loan.h"
#include "proto/wire/message.h"

namespace backboned::client {

// Sends one request, then receives one answer; each is a single message or a
// stream.
//
// If the server ends the call early, the caller gets the server's status: Send
// just stops, and receiving the answer returns the error. An answer that cannot
// be understood is kInternal.
//
// The destructor ends the use of the memory that was sent. It waits, past the
// deadline if necessary, for a connection that is still writing the memory.
//
// Not thread-safe.
class Call {
 public:
  // Returns the places of the tensors of an answer with this first message.
  using Place =
      absl::FunctionRef<absl::StatusOr<std::vector<std::span<std::byte>>>(
          const wire::Message& first)>;

  // Starts a call of `method`, e.g. "/backboned.v1.BackboneService/Forward",
  // which has `left` time.
  Call(const Connection& connection, const char* method, absl::Duration left);
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // Sends a request of one message.
  void SendMessage(const google::protobuf::MessageLite& request);

  // Sends a request that is a stream of a header and tensors.
  void SendTensors(const google::protobuf::MessageLite& header,
                   const std::vector<std::span<const std::byte>>& tensors);

  // Receives an answer of one message.
  absl::Status ReceiveMessage(google::protobuf::MessageLite& answer);

  // Receives an answer that is a stream. An error of `place` ends the call and
  // is returned.
  absl::Status ReceiveTensors(Place place);

 private:
  bool Read(grpc::ByteBuffer& buffer);
  absl::StatusOr<wire::Message> ReadMessage();
  absl::Status ReadTensors(Place place);
  absl::Status Finish(absl::Status received);

  Loan loan_;  // Outlives the holders of slices.
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>>
      stream_;
  bool ended_ = false;  // The server has sent its last message.
  bool finished_ = false;
};

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_CALL_H_
