#include "client/cli/output.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backboned/v1/instance.pb.h"
#include "client/cli/command_line.h"
#include "client/cli/progress.h"

namespace backboned::cli {
namespace {

TEST(TableTest, AlignsColumnsAndEndsLinesAtTheirText) {
  Table table({{"NAME"}, {"SIZE", true}, {"FLAGS"}});
  table.Add({"a", "1.5 MB", "shared"});
  table.Add({"longer", "512 B", ""});
  EXPECT_EQ(table.Format(/*is_bold=*/false),
            "NAME      SIZE  FLAGS\n"
            "a       1.5 MB  shared\n"
            "longer   512 B  -\n");
}

TEST(TableTest, PrintsNoControlCharacters) {
  Table table({{"NAME"}});
  table.Add({"a\x1b[31mb\n"});
  EXPECT_EQ(table.Format(false), "NAME\na?[31mb?\n");
}

TEST(TableTest, IsBoldInItsHeadAlone) {
  Table table({{"NAME"}});
  table.Add({"a"});
  EXPECT_EQ(table.Format(true), "\x1b[1mNAME\x1b[0m\na\n");
}

TEST(FormatTest, GivesBytesAndCountsUnits) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(999), "999 B");
  EXPECT_EQ(FormatBytes(1'500), "1.5 kB");
  EXPECT_EQ(FormatBytes(358'440), "358 kB");
  EXPECT_EQ(FormatBytes(44'700'000), "44.7 MB");
  EXPECT_EQ(FormatBytes(7'000'000'000'000'000), "7000 TB");
  EXPECT_EQ(FormatCount(89'610), "89610");
  EXPECT_EQ(FormatCount(11'173'962), "11.2 M");
}

TEST(FormatTest, GivesAnAgeOneUnit) {
  EXPECT_EQ(FormatAge(absl::Seconds(-1)), "0 s");
  EXPECT_EQ(FormatAge(absl::Seconds(119)), "119 s");
  EXPECT_EQ(FormatAge(absl::Seconds(120)), "2 min");
  EXPECT_EQ(FormatAge(absl::Hours(47)), "47 h");
  EXPECT_EQ(FormatAge(absl::Hours(48)), "2 d");
}

TEST(FormatTest, FillsABar) {
  EXPECT_EQ(FormatProgress("getting a", 0, 1000),
            "getting a  [>                             ]   0%  0 B of 1.0 kB");
  EXPECT_EQ(FormatProgress("getting a", 500, 1000),
            "getting a  [===============>              ]  50%  "
            "500 B of 1.0 kB");
  EXPECT_EQ(FormatProgress("getting a", 1000, 1000),
            "getting a  [==============================] 100%  "
            "1.0 kB of 1.0 kB");
}

TEST(JsonTest, HasTheContractsNamesAndWhatIsNotSet) {
  v1::Version version;
  version.set_uid("u");
  version.set_params(3);
  EXPECT_EQ(
      JsonOf(version),
      "{\n \"uid\": \"u\",\n \"params\": \"3\",\n \"buffers\": \"0\"\n}\n");
}

TEST(ExitCodeTest, TellsTheKindOfError) {
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), 0);
  EXPECT_EQ(ExitCodeOf(absl::InternalError("")), 1);
  EXPECT_EQ(ExitCodeOf(absl::InvalidArgumentError("")), 2);
  EXPECT_EQ(ExitCodeOf(absl::UnavailableError("")), 3);
  EXPECT_EQ(ExitCodeOf(absl::NotFoundError("")), 4);
  EXPECT_EQ(ExitCodeOf(absl::PermissionDeniedError("")), 5);
  EXPECT_EQ(ExitCodeOf(absl::UnauthenticatedError("")), 5);
  EXPECT_EQ(ExitCodeOf(absl::AlreadyExistsError("")), 6);
  EXPECT_EQ(ExitCodeOf(absl::AbortedError("")), 6);
  EXPECT_EQ(ExitCodeOf(absl::FailedPreconditionError("")), 6);
  EXPECT_EQ(ExitCodeOf(absl::ResourceExhaustedError("")), 7);
  EXPECT_EQ(ExitCodeOf(absl::DeadlineExceededError("")), 7);
}

}  // namespace
}  // namespace backboned::cli
