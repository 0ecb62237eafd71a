#include "server/process/environment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::vector<std::string> kOptions = {
    "BACKBONED_LISTEN", "BACKBONED_MAX_TAPES", "BACKBONED_MAX_TAPE_BYTES"};

std::vector<std::string> Unknown(std::vector<const char*> environment) {
  environment.push_back(nullptr);
  return UnknownVariables(environment.data(), kOptions);
}

TEST(EnvironmentTest, TakesOptionsAndWhatIsNotOurs) {
  EXPECT_THAT(Unknown({"PATH=/bin", "BACKBONED_MAX_TAPES=3", "XBACKBONED_A=1",
                       "BACKBONED=1", "backboned_a=1"}),
              IsEmpty());
}

TEST(EnvironmentTest, TakesWhatClientsAndTestsRead) {
  EXPECT_THAT(
      Unknown({"BACKBONED_BIN=/b", "BACKBONED_SERVER=h:1",
               "BACKBONED_MODE=auto", "BACKBONED_REQUIRE_REMOTE=1",
               "BACKBONED_TRANSPORT=grpcio", "BACKBONED_MAMMOTH=m",
               "BACKBONED_UPDATE_GOLDEN=1", "BACKBONED_OMP_WAIT_APPLIED=1"}),
      IsEmpty());
}

TEST(EnvironmentTest, NamesEachUnknownVariableAndTheNearestOption) {
  EXPECT_THAT(
      Unknown({"PATH=/bin", "BACKBONED_MAX_TAPE=3", "BACKBONED_LISTENS="}),
      ElementsAre("the environment variable BACKBONED_MAX_TAPE is "
                  "unknown and has no effect; did you mean "
                  "BACKBONED_MAX_TAPES?",
                  HasSubstr("BACKBONED_LISTENS is unknown")));
}

}  // namespace
}  // namespace backboned
