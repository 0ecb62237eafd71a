// A server in this process that records requests, and answers none.

#ifndef BACKBONED_TESTS_CLIENT_CPP_RECORDING_SERVER_H_
#define BACKBONED_TESTS_CLIENT_CPP_RECORDING_SERVER_H_

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <grpcpp/server.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/status.h>
#include <grpcpp/support/sync_stream.h>

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace backboned::client {

// Returns all methods of the contract, but for the stream of their calls.
std::vector<const google::protobuf::MethodDescriptor*> MethodsOfTheContract();

// Ends each call of the contract after its first message, those in a stream of
// calls too.
//
// Thread-safe.
class RecordingServer {
 public:
  // An attempt of a call: its method, and its first message.
  struct Attempt {
    const google::protobuf::MethodDescriptor* method;
    std::unique_ptr<google::protobuf::Message> message;

    // Returns the request's id; empty if it has none.
    std::string request_id() const;
  };

  RecordingServer();
  ~RecordingServer();

  std::string target() const;

  // Ends the next calls with these statuses, in order, and all others with
  // UNIMPLEMENTED.
  void EndWith(std::deque<grpc::Status> statuses);

  // Takes the attempts so far.
  std::vector<Attempt> Take();

 private:
  class Service;
  using Stream = grpc::ServerReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>;

  grpc::Status NoteCalls(Stream& stream);
  grpc::Status Note(Attempt attempt);

  absl::Mutex mutex_;
  std::vector<Attempt> attempts_ ABSL_GUARDED_BY(mutex_);
  std::deque<grpc::Status> statuses_ ABSL_GUARDED_BY(mutex_);
  int port_ = 0;
  std::vector<std::unique_ptr<Service>> services_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace backboned::client

#endif  // BACKBONED_TESTS_CLIENT_CPP_RECORDING_SERVER_H_
