// Checks that, after any steps in any order, the answers are those of a simple
// model, and nothing is left at the end.
//
// BACKBONED_RANDOM_SECONDS: the time for further sequences; 0 unless set.
// BACKBONED_RANDOM_SEED: the first sequence's seed; 1 unless set.
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "tests/client/cpp/random/run.h"

namespace backboned::client::random {
namespace {

constexpr uint32_t kSequences = 40;
constexpr size_t kSteps = 150;

int64_t FromEnvironment(const char* name, int64_t fallback) {
  const char* value = std::getenv(name);
  return value == nullptr ? fallback : std::atoll(value);
}

// Makes the sequence of `seed`; returns the number of demoted tapes.
int64_t MakeSequence(uint32_t seed) {
  const bool tapes_are_scarce = seed % 2 == 0;
  std::vector<Step> steps = StepsOf(seed, kSteps);
  const Outcome outcome = Run(steps, tapes_are_scarce);
  if (outcome.failure.empty()) return outcome.demoted_tapes;
  steps.resize(outcome.step_count);
  steps = Shorten(steps, tapes_are_scarce);
  const Outcome again = Run(steps, tapes_are_scarce);
  const Outcome& shown = again.failure.empty() ? outcome : again;
  ADD_FAILURE() << "seed " << seed << " (BACKBONED_RANDOM_SEED=" << seed
                << "): " << outcome.failure << "\nshortened to " << steps.size()
                << " steps:\n  " << absl::StrJoin(shown.log, "\n  ") << "\n"
                << shown.failure;
  return 0;
}

TEST(RandomTest, AnswersAreTheModelsAndNothingIsLeft) {
  spdlog::set_level(spdlog::level::off);
  auto seed =
      static_cast<uint32_t>(FromEnvironment("BACKBONED_RANDOM_SEED", 1));
  const uint32_t end = seed + kSequences;
  const absl::Time until = absl::Now() + absl::Seconds(FromEnvironment(
                                             "BACKBONED_RANDOM_SECONDS", 0));
  int64_t demoted = 0;
  while ((seed < end || absl::Now() < until) && !HasFailure()) {
    demoted += MakeSequence(seed++);
  }
  RecordProperty("sequences", absl::StrCat(seed - (end - kSequences)));
  EXPECT_GT(demoted, 0);
}

}  // namespace
}  // namespace backboned::client::random
