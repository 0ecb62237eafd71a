// Keeps what callers use: device time, operations and bytes, by hour.

#ifndef BACKBONED_SERVER_USAGE_USAGE_LOG_H_
#define BACKBONED_SERVER_USAGE_USAGE_LOG_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "server/usage/database.h"
#include "server/usage/usage_counts.h"

namespace backboned {

// The sums of what callers have used, in a SQLite database: the file
// `usage.sqlite` of the state folder, or memory.
//
// Calls are counted in memory. A thread adds the counts to the database every
// few seconds, and at the end, each time as one transaction that survives a
// power cut; a crash loses what came since the last one. While the disk refuses
// them, the counts stay in memory.
//
// Hours older than kKept go, and the oldest ones beyond the most rows.
//
// Thread-safe.
class UsageLog {
 public:
  static constexpr absl::Duration kKept = absl::Hours(24 * 366);

  struct Options {
    // The state folder, which this process has locked. Empty: there is none.
    std::string folder = {};
    absl::Duration interval = absl::Seconds(5);
    // Rows beyond which the oldest hours go. Absent: a million in a file, a
    // tenth of that in memory.
    std::optional<int64_t> max_rows = {};
    // Tells the date.
    std::function<absl::Time()> date = absl::Now;
  };

  // The time that each device has worked since the server's start, by name.
  using BusyTimes = std::map<std::string, absl::Duration>;

  // Opens the database. A file that is damaged is set aside, as
  // `usage-ID.sqlite`, and a line of the log says so.
  //
  // Returns kFailedPrecondition, which says what is wrong, if a newer server
  // has written the file, or it cannot be opened.
  static absl::StatusOr<std::unique_ptr<UsageLog>> Open(Options options);

  // Ends as Stop does.
  ~UsageLog();

  UsageLog(const UsageLog&) = delete;
  UsageLog& operator=(const UsageLog&) = delete;

  // Starts the thread, which asks `busy` how long devices have worked.
  void Start(std::function<BusyTimes()> busy);

  // Ends the thread, after a last Flush. Later counts are lost.
  void Stop();

  // The caller of a call that has ended.
  struct Caller {
    std::string_view principal;
    std::string_view instance;  // `owner/name`. Empty: none.
    std::string_view uid;
    std::string_view label;  // Empty: none.
  };

  // Counts a call. Takes less than 1 us, and never waits for the disk.
  void Count(const Caller& caller, const UsageAmounts& amounts);

  // Adds all counts to the database. Returns the disk's error, which is logged:
  // the counts stay then.
  absl::Status Flush();

  // Says which sums are asked for.
  struct Query {
    // The things that a row is of; none: of all together.
    bool by_principal = false;
    bool by_instance = false;  // And its uid.
    bool by_label = false;
    std::optional<std::string> principal = {};  // Only this one's.
    // Hours that begin in [since, until).
    absl::Time since = absl::InfinitePast();
    absl::Time until = absl::InfiniteFuture();
    // Only rows whose RowKey is greater, and the first so many of them.
    std::string after = {};
    size_t limit = 1000;
  };

  struct Row {
    UsageKey key;      // What the rows are not of is empty.
    absl::Time begin;  // Of the first hour that something was counted in.
    absl::Time end;    // Of the last one.
    UsageAmounts amounts;
  };

  struct Answer {
    std::vector<Row> rows;  // By RowKey.
    absl::Duration busy;    // How long all devices have worked meanwhile.
  };

  // Sums up the database and what is not in it yet. Returns the disk's error.
  // Takes up to a second.
  absl::StatusOr<Answer> Sum(const Query& query);

  // Returns a text by which rows are in order, and that no other row has.
  static std::string RowKey(const Row& row);

 private:
  class Sums;

  explicit UsageLog(Options options);

  absl::Status OpenFile() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status OpenDatabase() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetAside(const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  UsageCounts::Rows TakeBusy() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Insert(const UsageCounts::Rows& rows)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Write(const UsageCounts::Rows& rows)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status ForgetOld() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Read(const std::optional<std::string>& principal, Sums& sums)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int64_t Hour() const;
  void FlushUntilEnd();

  const Options options_;
  const std::string file_;  // Empty: memory.
  UsageCounts counts_;

  absl::Mutex mutex_;  // Held while the disk works.
  std::optional<Database> database_ ABSL_GUARDED_BY(mutex_);
  bool is_refused_ ABSL_GUARDED_BY(mutex_) = false;  // And that was logged.
  int64_t forgotten_ ABSL_GUARDED_BY(mutex_) = 0;    // The hour of ForgetOld.
  std::function<BusyTimes()> busy_ ABSL_GUARDED_BY(mutex_);
  BusyTimes last_busy_ ABSL_GUARDED_BY(mutex_);

  absl::Mutex end_mutex_;
  MonotonicCondVar ended_;
  bool ending_ ABSL_GUARDED_BY(end_mutex_) = false;
  std::thread thread_;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_USAGE_USAGE_LOG_H_
