// Runs a sequence of steps.

#ifndef BACKBONED_TESTS_CLIENT_CPP_RANDOM_RUN_H_
#define BACKBONED_TESTS_CLIENT_CPP_RANDOM_RUN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "tests/client/cpp/random/choice.h"

namespace backboned::client::random {

// The outcome of a run.
struct Outcome {
  // The difference from the model, and the steps up to the one that showed it.
  // Empty: no difference.
  std::string failure;
  std::vector<std::string> log;
  // The number of steps, the last one included.
  size_t step_count = 0;
  // The number of tapes that the server demoted.
  int64_t demoted_tapes = 0;
};

// Makes the steps on a new server (see World), one after the other, until an
// answer differs from the model's. Then deletes everything, and expects that
// the server holds nothing.
//
// `patience`: the time within which interrupted calls must end on the server.
Outcome Run(const std::vector<Step>& steps, bool tapes_are_scarce,
            absl::Duration patience = absl::Seconds(20));

// Removes steps as long as the rest still fails, for a limited time.
std::vector<Step> Shorten(std::vector<Step> steps, bool tapes_are_scarce);

}  // namespace backboned::client::random

#endif  // BACKBONED_TESTS_CLIENT_CPP_RANDOM_RUN_H_
