// How a client speaks to its server.

#ifndef BACKBONED_CLIENT_CPP_OPTIONS_H_
#define BACKBONED_CLIENT_CPP_OPTIONS_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace backboned::client {

struct Options {
  // The client process: unnamed instances and tapes die some time after its
  // last call. 1 to 64 characters of [A-Za-z0-9_.-]. Empty: random.
  std::string session;

  // The run's name: all that bear it have one share of the device together, and
  // it stands in the server's log. Empty: none, the session has a share.
  std::string label;

  // How long Connect waits for the server.
  absl::Duration connect_timeout = absl::Seconds(10);

  // Deadline of each call from its beginning, its repetitions included.
  // absl::InfiniteDuration(): none.
  absl::Duration call_timeout = absl::Minutes(2);

  // How long after its beginning a call may be made again, if the server was
  // too busy to begin it or the connection was lost. A change that has no
  // request id gets a random one, so that it is applied once. Zero: no call is
  // made again, and none gets an id.
  absl::Duration retry_timeout = absl::Seconds(30);

  // An answer whose tensors have more bytes is refused before memory is taken.
  int64_t max_answer_bytes = int64_t{8} << 30;
};

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_OPTIONS_H_
