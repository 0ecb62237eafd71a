#include "server/usage/usage_log.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/random_id.h"

namespace backboned {
namespace {

constexpr int64_t kFormat = 1;  // SQLite's user_version.
constexpr int64_t kMostRowsInFile = 1'000'000;
constexpr int64_t kMostRowsInMemory = 100'000;

// The time that a device has worked is a row of nobody, with the device's name
// as its instance.
constexpr std::string_view kNobody = "";

constexpr char kUsageTable[] =
    "CREATE TABLE IF NOT EXISTS usage (hour INTEGER NOT NULL, "
    "principal TEXT NOT NULL, instance TEXT NOT NULL, uid TEXT NOT NULL, "
    "label TEXT NOT NULL, calls INTEGER NOT NULL, device_ns INTEGER NOT NULL, "
    "flops REAL NOT NULL, bytes_in INTEGER NOT NULL, "
    "bytes_out INTEGER NOT NULL, "
    "PRIMARY KEY (hour, principal, instance, uid, label)) WITHOUT ROWID";

constexpr char kAddUsage[] =
    "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) "
    "ON CONFLICT DO UPDATE SET calls = calls + excluded.calls, "
    "device_ns = device_ns + excluded.device_ns, "
    "flops = flops + excluded.flops, "
    "bytes_in = bytes_in + excluded.bytes_in, "
    "bytes_out = bytes_out + excluded.bytes_out";

constexpr char kReadUsage[] =
    "SELECT * FROM usage WHERE hour >= ?1 AND hour < ?2 "
    "AND (?3 OR principal IN (?4, ''))";

int64_t HourOf(absl::Time time) {
  return absl::ToInt64Hours(time - absl::UnixEpoch());
}

absl::Time TimeOf(int64_t hour) {
  return absl::UnixEpoch() + absl::Hours(hour);
}

// Returns the first hour that begins at `time` or later.
int64_t FirstHourFrom(absl::Time time) {
  const int64_t hour = HourOf(time);  // Of an infinite time the last one.
  return TimeOf(hour) < time ? hour + 1 : hour;
}

std::string FileIn(const std::string& folder) {
  if (folder.empty()) return "";
  std::error_code ignored;  // Opening the file says what is wrong.
  return std::filesystem::weakly_canonical(folder, ignored) / "usage.sqlite";
}

// Returns kDataLoss if a database is damaged.
absl::Status CheckWhole(Database& database) {
  // Gives a text for a fault, else `ok`.
  Statement check(database, "PRAGMA quick_check(1)");
  const absl::StatusOr<bool> checked = check.Step();
  if (!checked.ok()) return checked.status();
  return check.Text(0) == "ok"
             ? absl::OkStatus()
             : absl::DataLossError(std::string(check.Text(0)));
}

absl::Status DiskRefused(const absl::Status& status) {
  return Error(absl::StatusCode::kInternal, Reason::kStorageFailed,
               absl::StrCat("the server cannot read what was used: ",
                            std::string(status.message())));
}

}  // namespace

// Adds up the rows that a query asks for.
class UsageLog::Sums {
 public:
  explicit Sums(const Query& query)
      : query_(query),
        since_(FirstHourFrom(query.since)),
        until_(FirstHourFrom(query.until)) {}

  // The hours that count: those in [since, until).
  int64_t since() const { return since_; }
  int64_t until() const { return until_; }

  void Add(const UsageKeyView& key, const UsageAmounts& amounts) {
    if (key.hour < since_ || key.hour >= until_) return;
    if (key.principal == kNobody) {
      answer_.busy += amounts.device_time;
    } else if (!query_.principal || key.principal == *query_.principal) {
      AddTo(RowOf(key), amounts);
    }
  }

  Answer Take() {
    for (auto& [key, row] : rows_) answer_.rows.push_back(std::move(row));
    return std::move(answer_);
  }

 private:
  // Returns the row that the sums are of.
  Row RowOf(const UsageKeyView& key) const {
    Row row = {.begin = TimeOf(key.hour), .end = TimeOf(key.hour + 1)};
    if (query_.by_principal) row.key.principal = key.principal;
    if (query_.by_instance) {
      row.key.instance = key.instance;
      row.key.uid = key.uid;
    }
    if (query_.by_label) row.key.label = key.label;
    return row;
  }

  // A row that is not among the first so many never is again.
  void AddTo(Row row, const UsageAmounts& amounts) {
    std::string key = RowKey(row);
    if (key <= query_.after) return;
    if (rows_.size() == query_.limit && key > rows_.rbegin()->first) return;
    Row& sum = rows_.try_emplace(std::move(key), row).first->second;
    sum.begin = std::min(sum.begin, row.begin);
    sum.end = std::max(sum.end, row.end);
    sum.amounts += amounts;
    if (rows_.size() > query_.limit) rows_.erase(std::prev(rows_.end()));
  }

  const Query& query_;
  const int64_t since_;
  const int64_t until_;
  std::map<std::string, Row> rows_;  // By RowKey: the first ones so far.
  Answer answer_;
};

UsageLog::UsageLog(Options options)
    : options_(std::move(options)), file_(FileIn(options_.folder)) {}

absl::StatusOr<std::unique_ptr<UsageLog>> UsageLog::Open(Options options) {
  std::unique_ptr<UsageLog> log(new UsageLog(std::move(options)));
  absl::MutexLock lock(&log->mutex_);
  absl::Status opened = log->OpenDatabase();
  if (!opened.ok()) return opened;
  return log;
}

// Opens the database, a new one in the place of a damaged file.
absl::Status UsageLog::OpenDatabase() {
  absl::Status opened = OpenFile();
  if (absl::IsDataLoss(opened)) {
    SetAside(opened);
    opened = OpenFile();
  }
  if (opened.ok() || absl::IsFailedPrecondition(opened)) return opened;
  return absl::FailedPreconditionError(
      absl::StrCat("usage.sqlite in --state-dir ", options_.folder,
                   " cannot be opened: ", opened.message()));
}

absl::Status UsageLog::OpenFile() {
  absl::StatusOr<Database> database = Database::Open(file_);
  if (!database.ok()) return database.status();
  const absl::StatusOr<int64_t> format = database->Ask("PRAGMA user_version");
  if (!format.ok()) return format.status();
  if (*format > kFormat) {
    return absl::FailedPreconditionError(absl::StrCat(
        "usage.sqlite in --state-dir ", options_.folder, " has format ",
        *format, ", of a newer server; this one reads ", kFormat));
  }
  absl::Status done = CheckWhole(*database);
  if (done.ok()) {
    done = database->Run(absl::StrCat(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN; ",
        kUsageTable, "; PRAGMA user_version = ", kFormat, "; COMMIT"));
  }
  if (!done.ok()) return done;
  database_.emplace(*std::move(database));
  forgotten_ = 0;
  return absl::OkStatus();
}

void UsageLog::SetAside(const absl::Status& why) {
  database_.reset();
  const std::filesystem::path folder =
      std::filesystem::path(file_).parent_path();
  const std::string name =
      absl::StrCat("usage-", RandomId().substr(0, 8), ".sqlite");
  std::error_code failed;
  std::filesystem::rename(file_, folder / name, failed);
  spdlog::warn("set usage.sqlite of --state-dir aside as {}{}: {}", name,
               failed ? ", in vain" : "", std::string(why.message()));
  std::error_code ignored;  // There need be none.
  for (const char* const end : {"-wal", "-shm"}) {
    std::filesystem::rename(file_ + end, (folder / name).string() + end,
                            ignored);
  }
}

UsageLog::~UsageLog() { Stop(); }

void UsageLog::Start(std::function<BusyTimes()> busy) {
  {
    absl::MutexLock lock(&mutex_);
    busy_ = std::move(busy);
  }
  thread_ = std::thread([this] { FlushUntilEnd(); });
}

void UsageLog::Stop() {
  if (!thread_.joinable()) return;
  {
    absl::MutexLock lock(&end_mutex_);
    ending_ = true;
    ended_.SignalAll();
  }
  thread_.join();
  Flush().IgnoreError();  // Logged.
  absl::MutexLock lock(&mutex_);
  busy_ = nullptr;
}

void UsageLog::FlushUntilEnd() {
  absl::MutexLock lock(&end_mutex_);
  while (!ending_) {
    ended_.WaitWithTimeout(&end_mutex_, options_.interval);
    if (ending_) return;
    end_mutex_.Unlock();
    Flush().IgnoreError();  // Logged.
    end_mutex_.Lock();
  }
}

int64_t UsageLog::Hour() const { return HourOf(options_.date()); }

void UsageLog::Count(const Caller& caller, const UsageAmounts& amounts) {
  counts_.Add({.hour = Hour(),
               .principal = caller.principal,
               .instance = caller.instance,
               .uid = caller.uid,
               .label = caller.label},
              amounts);
}

// Returns how long devices have worked since the last time. Call this after
// the counts of calls are read, of which it is the whole.
UsageCounts::Rows UsageLog::TakeBusy() {
  UsageCounts::Rows rows;
  if (!busy_) return rows;
  const int64_t hour = Hour();
  for (const auto& [device, busy] : busy_()) {
    const absl::Duration more = busy - std::exchange(last_busy_[device], busy);
    if (more == absl::ZeroDuration()) continue;
    rows.push_back(
        {{.hour = hour, .principal = std::string(kNobody), .instance = device},
         {.device_time = more}});
  }
  return rows;
}

absl::Status UsageLog::Flush() {
  absl::MutexLock lock(&mutex_);
  UsageCounts::Rows rows = counts_.Take();
  std::ranges::move(TakeBusy(), std::back_inserter(rows));
  if (rows.empty()) return absl::OkStatus();
  absl::Status written = Write(rows);
  if (absl::IsDataLoss(written)) {
    SetAside(written);
    written = Write(rows);
  }
  if (!written.ok()) counts_.GiveBack(rows);
  if (!written.ok() && !is_refused_) {
    spdlog::warn("cannot write usage.sqlite of --state-dir, and try again: {}",
                 std::string(written.message()));
  } else if (written.ok() && is_refused_) {
    spdlog::info("usage.sqlite of --state-dir can be written again");
  }
  is_refused_ = !written.ok();
  return written;
}

// Adds rows to the database, all or none.
absl::Status UsageLog::Write(const UsageCounts::Rows& rows) {
  absl::Status done = database_ ? absl::OkStatus() : OpenDatabase();
  if (done.ok()) done = database_->Run("BEGIN IMMEDIATE");
  if (!done.ok()) return done;
  done = Insert(rows);
  if (done.ok()) done = ForgetOld();
  if (done.ok()) done = database_->Run("COMMIT");
  // After some errors SQLite has done so by itself.
  if (!done.ok()) database_->Run("ROLLBACK").IgnoreError();
  if (done.ok()) forgotten_ = Hour();
  return done;
}

absl::Status UsageLog::Insert(const UsageCounts::Rows& rows) {
  Statement add(*database_, kAddUsage);
  for (const auto& [key, amounts] : rows) {
    add.Bind(1, key.hour);
    add.Bind(2, key.principal);
    add.Bind(3, key.instance);
    add.Bind(4, key.uid);
    add.Bind(5, key.label);
    add.Bind(6, amounts.calls);
    add.Bind(7, absl::ToInt64Nanoseconds(amounts.device_time));
    add.Bind(8, amounts.flops);
    add.Bind(9, amounts.bytes_in);
    add.Bind(10, amounts.bytes_out);
    absl::Status added = add.Execute();
    if (!added.ok()) return added;
  }
  return absl::OkStatus();
}

// Once an hour: removes the hours that are too old or too many.
absl::Status UsageLog::ForgetOld() {
  const int64_t hour = Hour();
  if (hour == forgotten_) return absl::OkStatus();
  const int64_t most = options_.max_rows.value_or(
      file_.empty() ? kMostRowsInMemory : kMostRowsInFile);
  return database_->Run(absl::StrCat(
      "DELETE FROM usage WHERE hour < ", hour - absl::ToInt64Hours(kKept),
      "; DELETE FROM usage WHERE hour <= (SELECT hour FROM usage "
      "ORDER BY hour DESC LIMIT 1 OFFSET ",
      most, ")"));
}

absl::StatusOr<UsageLog::Answer> UsageLog::Sum(const Query& query) {
  absl::MutexLock lock(&mutex_);
  UsageCounts::Rows rows = counts_.Get();
  const UsageCounts::Rows busy = TakeBusy();
  counts_.GiveBack(busy);
  rows.insert(rows.end(), busy.begin(), busy.end());
  absl::Status opened = database_ ? absl::OkStatus() : OpenDatabase();
  if (!opened.ok()) return DiskRefused(opened);
  Sums sums(query);
  absl::Status read = Read(query.principal, sums);
  if (absl::IsDataLoss(read)) SetAside(read);
  if (!read.ok()) return DiskRefused(read);
  for (const auto& [key, amounts] : rows) {
    sums.Add({.hour = key.hour,
              .principal = key.principal,
              .instance = key.instance,
              .uid = key.uid,
              .label = key.label},
             amounts);
  }
  return sums.Take();
}

absl::Status UsageLog::Read(const std::optional<std::string>& principal,
                            Sums& sums) {
  Statement rows(*database_, kReadUsage);
  rows.Bind(1, sums.since());
  rows.Bind(2, sums.until());
  rows.Bind(3, int64_t{principal.has_value() ? 0 : 1});
  rows.Bind(4, std::string_view(principal.has_value() ? *principal : kNobody));
  while (true) {
    const absl::StatusOr<bool> has_row = rows.Step();
    if (!has_row.ok()) return has_row.status();
    if (!*has_row) return absl::OkStatus();
    sums.Add({.hour = rows.Integer(0),
              .principal = rows.Text(1),
              .instance = rows.Text(2),
              .uid = rows.Text(3),
              .label = rows.Text(4)},
             {.calls = rows.Integer(5),
              .device_time = absl::Nanoseconds(rows.Integer(6)),
              .flops = rows.Number(7),
              .bytes_in = rows.Integer(8),
              .bytes_out = rows.Integer(9)});
  }
}

std::string UsageLog::RowKey(const Row& row) {
  return absl::StrCat(row.key.principal, " ", row.key.instance, " ",
                      row.key.uid, " ", row.key.label);
}

}  // namespace backboned
