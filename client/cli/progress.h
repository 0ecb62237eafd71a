// Shows how much of a transfer is done.

#ifndef BACKBONED_CLIENT_CLI_PROGRESS_H_
#define BACKBONED_CLIENT_CLI_PROGRESS_H_

#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace backboned::cli {

// A bar on standard error, if that is a terminal; it goes with this object.
// Thread-safe.
class Progress {
 public:
  // `what` is being done.
  explicit Progress(std::string what);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();

  // Says how many bytes there are; shows nothing before.
  void Expect(int64_t total_bytes);

  // Says that more have moved.
  void Add(int64_t bytes);

  // Takes the bar away; nothing more is shown.
  void End();

 private:
  const std::string what_;
  const bool is_shown_;

  absl::Mutex mutex_;
  int64_t total_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t done_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time drawn_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

// Returns the bar's line: `getting a  [=====>    ]  52%  23.4 MB of 44.7 MB`.
std::string FormatProgress(const std::string& what, int64_t done_bytes,
                           int64_t total_bytes);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_PROGRESS_H_
