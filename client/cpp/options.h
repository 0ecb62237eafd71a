// Options of a client.

#ifndef BACKBONED_CLIENT_CPP_OPTIONS_H_
#define BACKBONED_CLIENT_CPP_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/time/time.h"
#include "client/cpp/credentials.h"

namespace backboned::client {

struct Options {
  // The name of the client process: unnamed instances and tapes die some time
  // after its last call. 1 to 64 characters of [A-Za-z0-9_.-]. Empty: random.
  std::string session;

  // The name of a run: clients of one label have one share of the device
  // together, and the server logs it. Empty: none, the session has its own
  // share.
  std::string label;

  // The longest wait of Connect for the server.
  absl::Duration connect_timeout = absl::Seconds(10);

  // The time from the start of each call to its deadline, repetitions included.
  // absl::InfiniteDuration(): no deadline.
  absl::Duration call_timeout = absl::Minutes(2);

  // The time from its start within which a call may be repeated if the server
  // was too busy to begin it or the connection was lost. A change without a
  // request id gets a random one, so that it is applied once. Zero: no call is
  // repeated, and none gets an id.
  absl::Duration retry_timeout = absl::Seconds(30);

  // An answer whose tensors exceed this is refused before memory is allocated.
  int64_t max_answer_bytes = int64_t{8} << 30;

  // The client's, and the CA by which it knows the server.
  Credentials credentials = {};

  // Is told the bytes of each part that has gone or come in the stream of
  // calls, e.g. to show how much is done; once more if a call is repeated. Is
  // called by threads that wait for calls, one at a time, and may not use the
  // client. Null: nobody is told.
  std::function<void(int64_t bytes)> moved = nullptr;
};

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_OPTIONS_H_
