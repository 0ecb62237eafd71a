#include "server/process/environment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const std::vector<std::string> kOptions = {
    "BACKBONED_LISTEN", "BACKBONED_MAX_TAPES", "BACKBONED_MAX_TAPE_BYTES"};

absl::Status Check(std::vector<const char*> environment) {
  environment.push_back(nullptr);
  return CheckEnvironment(environment.data(), kOptions);
}

TEST(EnvironmentTest, TakesOptionsAndWhatIsNotOurs) {
  EXPECT_THAT(Check({"PATH=/bin", "BACKBONED_MAX_TAPES=3", "XBACKBONED_A=1",
                     "BACKBONED=1", "backboned_a=1"}),
              IsOk());
}

TEST(EnvironmentTest, TakesWhatClientsAndTestsRead) {
  EXPECT_THAT(
      Check({"BACKBONED_BIN=/b", "BACKBONED_SERVER=h:1", "BACKBONED_MODE=auto",
             "BACKBONED_REQUIRE_REMOTE=1", "BACKBONED_TRANSPORT=grpcio",
             "BACKBONED_MAMMOTH=m", "BACKBONED_UPDATE_GOLDEN=1",
             "BACKBONED_OMP_WAIT_APPLIED=1"}),
      IsOk());
}

TEST(EnvironmentTest, RefusesAnUnknownVariableAndNamesTheNearest) {
  EXPECT_THAT(Check({"PATH=/bin", "BACKBONED_MAX_TAPE=3"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("variable BACKBONED_MAX_TAPE is unknown; did "
                                 "you mean BACKBONED_MAX_TAPES?")));
}

TEST(EnvironmentTest, RefusesAnUnknownVariableWithoutValue) {
  EXPECT_THAT(Check({"BACKBONED_LISTENS="}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("BACKBONED_LISTENS is unknown")));
}

}  // namespace
}  // namespace backboned
