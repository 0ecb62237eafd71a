// A server in this process with a fake backbone, and calls that send it any
// bytes.
//
// This header needs neither LibTorch nor generated services, so that tests
// compile fast.

#ifndef BACKBONED_TESTS_TESTING_TEST_SERVER_H_
#define BACKBONED_TESTS_TESTING_TEST_SERVER_H_

#include <google/protobuf/message_lite.h>
#include <grpcpp/channel.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "server/callers/answer_log.h"
#include "server/limits/limits.h"
#include "users/users_file.h"

namespace backboned {

// The fake's size, and the server's options. A session may have all of a limit.
struct TestServerOptions {
  int64_t size = 4;  // Elements of each of the fake's four parameters.
  // As --listen has it. Clients come through the first; none: in this process.
  std::vector<std::string> listen = {};
  Limits limits = {.quotas = {}};
  AnswerLog::Limits answers = {};
  const Clock* clock = nullptr;  // Null: MonotonicClock(). Outlives the server.
};

// A Server and an RpcServer. It hosts the instance `fake` of `local`, a
// FakeArchitecture.
class TestServer {
 public:
  explicit TestServer(const TestServerOptions& options = {});
  ~TestServer();

  // A channel inside this process, or through TCP.
  const std::shared_ptr<grpc::Channel>& channel() const;

  // Hosts another fake, without hooks, with the same options.
  void AddFake(const std::string& name,
               const std::string& owner = "local") const;

  // Sets hooks of the instance `fake`, and counts its forwards that began.
  void OnForward(std::function<void()> hook) const;
  void OnBackward(std::function<void()> hook) const;
  int64_t forward_count() const;

  // Lets in only these users, and ends the streams of all others.
  void SetUsers(const Users& users) const;

  // The amounts held now.
  int64_t in_flight_bytes() const;
  int64_t tape_count() const;
  int64_t tape_bytes() const;

  // Sweeps as the sweeper would after `time`.
  void SweepAfter(absl::Duration time) const;

  // Refuses new calls, and returns once those inside have ended. gRPC may cut
  // off their last messages inside this process.
  void Drain() const;

  // Waits until every call has ended on the server too, and continues with a
  // new channel. All calls that matter must have ended.
  void Settle();

 private:
  struct Parts;

  std::unique_ptr<Parts> parts_;
};

// A call that sends and takes messages as bytes. Not thread-safe.
class RawCall {
 public:
  struct Options {
    absl::Duration timeout = absl::Minutes(1);
    std::multimap<std::string, std::string> metadata = {};
  };

  // Starts a call of `method`: `/backboned.v1.BackboneService/Forward`, or, for
  // this service, `Forward`.
  RawCall(const std::shared_ptr<grpc::Channel>& channel,
          std::string_view method, const Options& options);
  RawCall(const std::shared_ptr<grpc::Channel>& channel,
          std::string_view method);

  // Cancels a call that has not ended.
  ~RawCall();

  // Sends a message; returns false if the server takes no more.
  bool Send(std::string_view message);

  // Ends the client's messages.
  void HalfClose();

  // Takes a message; returns nullopt if there are no more.
  std::optional<std::string> Receive();

  // Thread-safe.
  void Cancel();

  // Half-closes, takes the remaining messages, and returns how the call ended.
  absl::Status End();

  // The messages that End took.
  const std::vector<std::string>& messages() const { return messages_; }

 private:
  struct Stream;

  std::unique_ptr<Stream> stream_;
  std::vector<std::string> messages_;
};

// Returns a stream's message with a header.
std::string Message(const google::protobuf::MessageLite& header);

// Returns a stream's message with a chunk.
std::string Message(int64_t offset, std::string_view data);

// Returns a stream's message with both.
std::string Message(const google::protobuf::MessageLite& header, int64_t offset,
                    std::string_view data);

// Convert between float32 numbers and their bytes.
std::string Bytes(const std::vector<float>& values);
std::vector<float> Floats(std::string_view bytes);

}  // namespace backboned

#endif  // BACKBONED_TESTS_TESTING_TEST_SERVER_H_
