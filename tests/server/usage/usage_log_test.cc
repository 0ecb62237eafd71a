// Tests what is kept of what callers used.
#include "server/usage/usage_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

namespace fs = std::filesystem;

constexpr UsageAmounts kForward = {.calls = 1,
                                   .device_time = absl::Milliseconds(20),
                                   .flops = 3e9,
                                   .bytes_in = 1000,
                                   .bytes_out = 10};

UsageAmounts Times(int64_t count) {
  UsageAmounts sum;
  for (int64_t i = 0; i < count; ++i) sum += kForward;
  return sum;
}

class UsageLogTest : public ::testing::Test {
 protected:
  UsageLogTest() {
    std::string folder = ::testing::TempDir() + "usageXXXXXX";
    folder_ = mkdtemp(folder.data());
  }
  ~UsageLogTest() override { fs::remove_all(folder_); }

  std::unique_ptr<UsageLog> Open(std::optional<int64_t> max_rows = {}) {
    auto log = TryOpen(max_rows);
    EXPECT_THAT(log, IsOk());
    return *std::move(log);
  }

  absl::StatusOr<std::unique_ptr<UsageLog>> TryOpen(
      std::optional<int64_t> max_rows = {}) {
    return UsageLog::Open({.folder = folder_,
                           .max_rows = max_rows,
                           .date = [this] { return date_; }});
  }

  static std::vector<UsageLog::Row> RowsOf(UsageLog& log,
                                           const UsageLog::Query& query) {
    const auto answer = log.Sum(query);
    EXPECT_THAT(answer, IsOk());
    return answer.ok() ? answer->rows : std::vector<UsageLog::Row>();
  }

  // Returns the sum of all rows.
  static UsageAmounts SumOf(UsageLog& log) {
    const auto rows = RowsOf(log, {});
    return rows.empty() ? UsageAmounts() : rows.at(0).amounts;
  }

  static std::vector<std::string> KeysOf(
      const std::vector<UsageLog::Row>& rows) {
    std::vector<std::string> keys;
    for (const auto& row : rows) keys.push_back(UsageLog::RowKey(row));
    return keys;
  }

  std::vector<std::string> Aside() const {
    std::vector<std::string> names;
    for (const auto& file : fs::directory_iterator(folder_)) {
      const std::string name = file.path().filename();
      if (name.starts_with("usage-") && name.ends_with(".sqlite")) {
        names.push_back(name);
      }
    }
    return names;
  }

  std::string File() const { return folder_ + "/usage.sqlite"; }

  std::string folder_;
  absl::Time date_ =
      absl::FromCivil(absl::CivilHour(2026, 11, 30, 18), absl::UTCTimeZone()) +
      absl::Minutes(59);
};

TEST_F(UsageLogTest, SumsUpByWhatIsAskedFor) {
  const auto log = Open();
  log->Count({"alice", "alice/a", "uid1", "run"}, kForward);
  log->Count({"alice", "alice/a", "uid1", "run"}, kForward);
  log->Count({"alice", "alice/b", "uid2", ""}, kForward);
  log->Count({"bob", "alice/a", "uid1", "run"}, kForward);
  log->Count({"bob", "", "", ""}, {.calls = 1, .bytes_out = 7});

  const auto users = RowsOf(*log, {.by_principal = true});
  EXPECT_THAT(KeysOf(users), ElementsAre("alice   ", "bob   "));
  EXPECT_EQ(users.at(0).amounts, Times(3));
  EXPECT_EQ(users.at(1).amounts.calls, 2);
  EXPECT_EQ(users.at(1).amounts.bytes_out, 17);

  const auto instances = RowsOf(*log, {.by_instance = true});
  EXPECT_THAT(KeysOf(instances),
              ElementsAre("   ", " alice/a uid1 ", " alice/b uid2 "));
  EXPECT_EQ(instances.at(1).amounts, Times(3));

  EXPECT_THAT(KeysOf(RowsOf(*log, {.by_principal = true, .by_label = true})),
              ElementsAre("alice   ", "alice   run", "bob   ", "bob   run"));
  EXPECT_EQ(SumOf(*log).calls, 5);
  EXPECT_THAT(KeysOf(RowsOf(*log, {.by_label = true, .principal = "bob"})),
              ElementsAre("   ", "   run"));
  EXPECT_THAT(RowsOf(*log, {.principal = "carol"}), IsEmpty());
}

TEST_F(UsageLogTest, HoursAreThoseOfUtc) {
  const auto log = Open();
  const absl::Time hour = date_ - absl::Minutes(59);
  log->Count({"alice"}, kForward);
  date_ += absl::Minutes(1);
  log->Count({"alice"}, kForward);
  const auto both = RowsOf(*log, {.by_principal = true});
  ASSERT_THAT(both, SizeIs(1));
  EXPECT_EQ(both[0].begin, hour);
  EXPECT_EQ(both[0].end, hour + absl::Hours(2));

  const auto calls = [&](absl::Time since, absl::Time until) {
    const auto rows = RowsOf(*log, {.since = since, .until = until});
    return rows.empty() ? 0 : rows[0].amounts.calls;
  };
  EXPECT_EQ(calls(hour, hour + absl::Hours(2)), 2);
  EXPECT_EQ(calls(hour, hour + absl::Hours(1)), 1);
  EXPECT_EQ(calls(hour + absl::Seconds(1), absl::InfiniteFuture()), 1)
      << "the hour began before";
  EXPECT_EQ(calls(absl::InfinitePast(), hour), 0);
  EXPECT_EQ(calls(absl::InfinitePast(), hour + absl::Nanoseconds(1)), 1);
}

TEST_F(UsageLogTest, RowsComeInPages) {
  const auto log = Open();
  for (const char* name : {"a", "b", "c", "d", "e"}) {
    log->Count({name}, kForward);
  }
  ASSERT_THAT(log->Flush(), IsOk());
  log->Count({"c"}, kForward);
  std::vector<std::string> keys;
  UsageLog::Query query = {.by_principal = true, .limit = 2};
  while (true) {
    const auto page = RowsOf(*log, query);
    if (page.empty()) break;
    EXPECT_LE(page.size(), 2U);
    for (const auto& row : page) {
      keys.push_back(row.key.principal);
      EXPECT_EQ(row.amounts, Times(row.key.principal == "c" ? 2 : 1));
    }
    query.after = UsageLog::RowKey(page.back());
  }
  EXPECT_THAT(keys, ElementsAre("a", "b", "c", "d", "e"));
}

TEST_F(UsageLogTest, WhatWasFlushedOutlivesTheProcess) {
  {
    const auto log = Open();
    log->Count({"alice", "alice/a", "uid", "run"}, kForward);
    ASSERT_THAT(log->Flush(), IsOk());
    log->Count({"alice", "alice/a", "uid", "run"}, kForward);
    EXPECT_EQ(SumOf(*log), Times(2));
  }  // Without Start nobody flushes the second one.
  const auto log = Open();
  EXPECT_EQ(SumOf(*log), Times(1));
  log->Count({"alice", "alice/a", "uid", "run"}, kForward);
  ASSERT_THAT(log->Flush(), IsOk());
  EXPECT_EQ(SumOf(*log), Times(2)) << "one row of one hour";
}

TEST_F(UsageLogTest, StopFlushesAndAsksHowLongDevicesWorked) {
  absl::Duration busy = absl::Seconds(3);
  {
    const auto log = Open();
    log->Start([&] { return UsageLog::BusyTimes{{"cpu", busy}}; });
    log->Count({"alice"}, kForward);
    EXPECT_EQ(log->Sum({})->busy, absl::Seconds(3));
    busy = absl::Seconds(4);
    log->Stop();
  }
  const auto log = Open();
  EXPECT_EQ(SumOf(*log), Times(1)) << "a device's time is no principal's";
  EXPECT_EQ(log->Sum({})->busy, absl::Seconds(4));
  EXPECT_EQ(log->Sum({.until = date_ - absl::Hours(1)})->busy,
            absl::ZeroDuration());
}

TEST_F(UsageLogTest, WithoutAFolderItIsInMemory) {
  const auto log = UsageLog::Open({});
  ASSERT_THAT(log, IsOk());
  (*log)->Count({"alice"}, kForward);
  ASSERT_THAT((*log)->Flush(), IsOk());
  EXPECT_EQ(SumOf(**log), Times(1));
}

TEST_F(UsageLogTest, HoursOfMoreThanAYearAgoGo) {
  const auto log = Open();
  log->Count({"alice"}, kForward);
  ASSERT_THAT(log->Flush(), IsOk());
  date_ += UsageLog::kKept;
  log->Count({"bob"}, kForward);
  ASSERT_THAT(log->Flush(), IsOk());
  EXPECT_THAT(RowsOf(*log, {.by_principal = true}), SizeIs(2));
  date_ += absl::Hours(1);
  log->Count({"bob"}, kForward);
  ASSERT_THAT(log->Flush(), IsOk());
  EXPECT_THAT(KeysOf(RowsOf(*log, {.by_principal = true})),
              ElementsAre("bob   "));
}

TEST_F(UsageLogTest, TheOldestHoursBeyondTheMostRowsGo) {
  const auto log = Open(/*max_rows=*/4);
  for (int hour = 0; hour < 4; ++hour, date_ += absl::Hours(1)) {
    log->Count({"alice"}, kForward);
    log->Count({"bob"}, kForward);
    ASSERT_THAT(log->Flush(), IsOk());
  }
  const auto rows = RowsOf(*log, {.by_principal = true});
  ASSERT_THAT(rows, SizeIs(2));
  for (const auto& row : rows) {
    EXPECT_EQ(row.amounts.calls, 2);
    EXPECT_EQ(row.end - row.begin, absl::Hours(2));
  }
}

TEST_F(UsageLogTest, WhatADiskRefusesIsWrittenLater) {
  const auto log = Open();
  log->Count({"alice"}, kForward);
  {
    absl::StatusOr<Database> other = Database::Open(fs::canonical(File()));
    ASSERT_THAT(other, IsOk());
    ASSERT_THAT(other->Run("BEGIN IMMEDIATE"), IsOk());
    EXPECT_THAT(log->Flush(),
                StatusIs(absl::StatusCode::kInternal, HasSubstr("locked")));
    EXPECT_EQ(SumOf(*log), Times(1));
    log->Count({"alice"}, kForward);
    EXPECT_FALSE(log->Flush().ok());
    EXPECT_EQ(SumOf(*log), Times(2));
  }
  ASSERT_THAT(log->Flush(), IsOk());
  EXPECT_EQ(SumOf(*log), Times(2));
  EXPECT_EQ(SumOf(*Open()), Times(2));
}

TEST_F(UsageLogTest, ADamagedFileIsSetAside) {
  std::ofstream(File()) << std::string(10'000, 'x');
  const auto log = Open();
  EXPECT_EQ(SumOf(*log), UsageAmounts());
  ASSERT_THAT(Aside(), SizeIs(1));
  std::string kept;
  std::ifstream(folder_ + "/" + Aside()[0]) >> kept;
  EXPECT_EQ(kept, std::string(10'000, 'x'));
  log->Count({"alice"}, kForward);
  EXPECT_THAT(log->Flush(), IsOk());
}

TEST_F(UsageLogTest, ATornFileIsSetAside) {
  {
    const auto log = Open();
    for (int i = 0; i < 500; ++i) {
      log->Count({"alice", absl::StrCat("alice/", i)}, kForward);
    }
    ASSERT_THAT(log->Flush(), IsOk());
  }
  fs::resize_file(File(), fs::file_size(File()) / 2);
  const auto log = Open();
  EXPECT_THAT(Aside(), SizeIs(1));
  EXPECT_EQ(SumOf(*log), UsageAmounts());
}

TEST_F(UsageLogTest, AFileThatIsDamagedMeanwhileLosesNoNewCounts) {
  const auto log = Open();
  log->Count({"alice"}, kForward);
  ASSERT_THAT(log->Flush(), IsOk());
  // The wal would hide the damage.
  ASSERT_THAT(Database::Open(fs::canonical(File()))
                  ->Run("PRAGMA wal_checkpoint(TRUNCATE)"),
              IsOk());
  const auto size = fs::file_size(File());
  std::ofstream(File()) << std::string(size, 'x');
  log->Count({"bob"}, kForward);
  EXPECT_THAT(log->Flush(), IsOk());
  EXPECT_THAT(KeysOf(RowsOf(*log, {.by_principal = true})),
              ElementsAre("bob   "));
  EXPECT_THAT(Aside(), SizeIs(1));
}

TEST_F(UsageLogTest, AFileOfANewerServerIsRefused) {
  Open();
  ASSERT_THAT(
      Database::Open(fs::canonical(File()))->Run("PRAGMA user_version = 2"),
      IsOk());
  EXPECT_THAT(TryOpen(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("has format 2, of a newer server; this one "
                                 "reads 1")));
  EXPECT_THAT(Aside(), IsEmpty());
}

TEST_F(UsageLogTest, AFolderInWhichNothingCanBeMadeIsRefused) {
  fs::create_directory(File());
  EXPECT_THAT(TryOpen(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                  StartsWith("usage.sqlite in --state-dir ")));
}

TEST_F(UsageLogTest, WhatAPrincipalHasTooManyOfIsOneRow) {
  const auto log = Open();
  const auto most = static_cast<int>(UsageCounts::kMostRowsOfPrincipal);
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < most + 10; ++i) {
      log->Count({"alice", "alice/a", "uid", absl::StrCat("run", i)}, kForward);
    }
    log->Count({"bob", "alice/a", "uid", "run"}, kForward);
    ASSERT_THAT(log->Flush(), IsOk());
  }
  const UsageLog::Query alices = {.by_instance = true,
                                  .by_label = true,
                                  .principal = "alice",
                                  .limit = most * 2};
  const auto rows = RowsOf(*log, alices);
  ASSERT_THAT(rows, SizeIs(most + 1));
  EXPECT_EQ(UsageLog::RowKey(rows[0]), " (other)  (other)");
  EXPECT_EQ(rows[0].amounts, Times(2 * 10));
  EXPECT_EQ(RowsOf(*log, {.principal = "bob"}).at(0).amounts, Times(2));
  date_ += absl::Hours(1);
  log->Count({"alice", "alice/a", "uid", "later"}, kForward);
  EXPECT_THAT(RowsOf(*log, alices), SizeIs(most + 2)) << "in the next hour";
}

TEST_F(UsageLogTest, ManyThreadsCountWhileOneFlushes) {
  const auto log = Open();
  constexpr int kThreads = 4;
  constexpr int kCalls = 2000;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&log, i] {
      for (int call = 0; call < kCalls; ++call) {
        log->Count(
            {absl::StrCat("user", call % 3), "", "", absl::StrCat("run", i)},
            kForward);
      }
    });
  }
  for (int i = 0; i < 20; ++i) EXPECT_THAT(log->Flush(), IsOk());
  for (std::thread& thread : threads) thread.join();
  ASSERT_THAT(log->Flush(), IsOk());
  EXPECT_EQ(SumOf(*log).calls, kThreads * kCalls);
  EXPECT_EQ(SumOf(*log).bytes_in, kForward.bytes_in * kThreads * kCalls);
}

}  // namespace
}  // namespace backboned
