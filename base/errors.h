// Errors that a program can read: a reason, and a limit's numbers.
//
// Both travel as a payload of absl::Status, so that a function returns them
// like any error; the service turns them into the contract's ErrorDetail. The
// names are those of proto/backboned/v1/error.proto.

#ifndef BACKBONED_BASE_ERRORS_H_
#define BACKBONED_BASE_ERRORS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace backboned {

// The reason of an error. The numbers are the contract's.
enum class Reason {
  kMalformedStream = 1,
  kShapeMismatch = 2,
  kDtypeMismatch = 3,
  kInvalidOption = 4,
  kInstanceNotFound = 5,
  kArchitectureNotFound = 6,
  kBenchmarkNotFound = 7,
  kInstanceExists = 8,
  kTapeNotFound = 9,
  kNoGradients = 10,
  kStaleVersion = 11,
  kAnswerExpired = 12,
  kRequestIdReused = 13,
  kLimitReached = 14,
  kOutOfMemory = 15,
  kDraining = 16,
  kClientStalled = 17,
  kComputeFailed = 18,
  kWeightsNotFound = 19,
  kWeightsRequired = 20,
  kWeightsUnreadable = 21,
  kNoOptimizer = 22,
  kReadOnly = 23,
  kCacheMiss = 24,
  kNotBegun = 25,
  kDeviceLost = 26,
  kIdentityRefused = 27,
  kNotPermitted = 28,
  kCheckpointNotFound = 29,
  kCheckpointUnreadable = 30,
  kNoStateFolder = 31,
  kStorageFailed = 32,
};

// The scope of a limit's count. The numbers are the contract's.
enum class LimitScope {
  kServer = 1,     // All callers.
  kPrincipal = 2,  // One principal.
  kSession = 3,    // One session.
  kRun = 4,        // One label, else one session.
};

// A limit that a call ran into.
struct Limit {
  // The server's option without its dashes: `max-tapes`.
  std::string name;
  // Its value, in the unit that its name says.
  int64_t value = 0;
  // The value that the call would have led to.
  int64_t requested = 0;
  // The time until a retry may succeed. Zero: a retry does not help.
  absl::Duration retry_delay = absl::ZeroDuration();
  // The scope of the count.
  LimitScope scope = LimitScope::kServer;
};

// The longest message of an error; a longer one is cut.
inline constexpr size_t kMaxMessageBytes = 1024;

// Makes an error that carries `reason`.
absl::Status Error(absl::StatusCode code, Reason reason,
                   std::string_view message);

// Makes a kInvalidArgument that carries Reason::kInvalidOption.
absl::Status InvalidOption(std::string_view message);

// Makes a kResourceExhausted that carries Reason::kLimitReached and `limit`.
absl::Status LimitReached(const Limit& limit, std::string_view message);

// Returns the reason that `status` carries, if any.
std::optional<Reason> ReasonOf(const absl::Status& status);

// Puts `place` and a colon before the message of an error, which gets a reason
// if it has none. OK stays OK.
absl::Status PrefixMessage(std::string_view place, const absl::Status& status,
                           Reason otherwise = Reason::kInvalidOption);

// Returns the limit that `status` carries, if any.
std::optional<Limit> LimitOf(const absl::Status& status);

// Returns `name` in double quotes for a message: cut after 130 bytes, and
// with a C escape for each byte that is not printable ASCII.
std::string Quote(std::string_view name);

// Returns a shape in the form of messages: `[4, 3, 32, 32]`.
std::string FormatShape(std::span<const int64_t> shape);

}  // namespace backboned

#endif  // BACKBONED_BASE_ERRORS_H_
