// Compares answers with the model.

#ifndef BACKBONED_TESTS_CLIENT_CPP_RANDOM_CHECKER_H_
#define BACKBONED_TESTS_CLIENT_CPP_RANDOM_CHECKER_H_

#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "backboned/v1/error.pb.h"
#include "backboned/v1/instance.pb.h"
#include "tests/client/cpp/random/model.h"

namespace backboned::client::random {

// The expected end of a call.
struct Ending {
  absl::StatusCode code = absl::StatusCode::kOk;
  v1::ErrorReason reason = v1::ERROR_REASON_UNSPECIFIED;

  bool ok() const { return code == absl::StatusCode::kOk; }
};

inline constexpr Ending kNoInstance = {absl::StatusCode::kNotFound,
                                       v1::ERROR_REASON_INSTANCE_NOT_FOUND};
inline constexpr Ending kTaken = {absl::StatusCode::kAlreadyExists,
                                  v1::ERROR_REASON_INSTANCE_EXISTS};
inline constexpr Ending kReadOnly = {absl::StatusCode::kFailedPrecondition,
                                     v1::ERROR_REASON_READ_ONLY};
inline constexpr Ending kStale = {absl::StatusCode::kAborted,
                                  v1::ERROR_REASON_STALE_VERSION};
inline constexpr Ending kAnswerExpired = {absl::StatusCode::kAborted,
                                          v1::ERROR_REASON_ANSWER_EXPIRED};
inline constexpr Ending kNoOptimizer = {absl::StatusCode::kFailedPrecondition,
                                        v1::ERROR_REASON_NO_OPTIMIZER};
inline constexpr Ending kNoGradients = {absl::StatusCode::kFailedPrecondition,
                                        v1::ERROR_REASON_NO_GRADIENTS};
inline constexpr Ending kNoTape = {absl::StatusCode::kFailedPrecondition,
                                   v1::ERROR_REASON_TAPE_NOT_FOUND};
inline constexpr Ending kInvalid = {absl::StatusCode::kInvalidArgument,
                                    v1::ERROR_REASON_INVALID_OPTION};
inline constexpr Ending kWrongShape = {absl::StatusCode::kInvalidArgument,
                                       v1::ERROR_REASON_SHAPE_MISMATCH};

// Records the steps of a run, and the first difference from the model.
class Checker {
 public:
  // Records the next step.
  void Log(const std::string& line) { log_.push_back(line); }

  // Records a difference.
  void Fail(const std::string& what);

  void Expect(bool holds, const std::string& what) {
    if (!holds) Fail(what);
  }

  // Returns whether a call succeeded; it must end as `ending` says.
  bool Ends(const absl::Status& status, const Ending& ending);

  void ExpectValues(std::span<const float> actual, const Values& expected,
                    const std::string& what);
  void ExpectVersion(const v1::Version& actual, const InstanceModel& expected);

  const std::vector<std::string>& log() const { return log_; }

  // Empty: no difference.
  const std::string& failure() const { return failure_; }

 private:
  std::vector<std::string> log_;
  std::string failure_;
};

// Returns `values` as a word of the log.
std::string Word(const Values& values);

}  // namespace backboned::client::random

#endif  // BACKBONED_TESTS_CLIENT_CPP_RANDOM_CHECKER_H_
