// Runs a sequence of steps.

#ifndef BACKBONED_TESTS_CLIENT_CPP_RANDOM_RUN_H_
#define BACKBONED_TESTS_CLIENT_CPP_RANDOM_RUN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "tests/client/cpp/random/choice.h"

namespace backboned::client::random {

// What came of a run.
struct Outcome {
  // What was not as the model says, and the steps so far, the last of which it
  // was. Empty: nothing.
  std::string failure;
  std::vector<std::string> log;
  // Steps that were made, the last one included.
  size_t step_count = 0;
  // Tapes that the server demoted.
  int64_t demoted_tapes = 0;
};

// Makes the steps on a server of their own (see World), one after the other,
// until an answer is not the model's. Then takes everything away, and expects
// that the server holds nothing.
//
// `patience` is how long what broke off may take to end on the server.
Outcome Run(const std::vector<Step>& steps, bool tapes_are_scarce,
            absl::Duration patience = absl::Seconds(20));

// Takes steps away as long as something fails, for some time at most.
std::vector<Step> Shorten(std::vector<Step> steps, bool tapes_are_scarce);

}  // namespace backboned::client::random

#endif  // BACKBONED_TESTS_CLIENT_CPP_RANDOM_RUN_H_
