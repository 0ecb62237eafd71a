// Makes the choices of a random sequence.

#ifndef BACKBONED_TESTS_CLIENT_CPP_RANDOM_CHOICE_H_
#define BACKBONED_TESTS_CLIENT_CPP_RANDOM_CHOICE_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "tests/client/cpp/random/model.h"

namespace backboned::client::random {

// A step of a sequence. Its effect follows from this number and from the state
// after the earlier steps, so that it makes sense after any others.
using Step = uint32_t;

// Returns `count` steps that follow from `seed`.
inline std::vector<Step> StepsOf(uint32_t seed, size_t count) {
  std::mt19937 random(seed);
  std::vector<Step> steps(count);
  std::ranges::generate(steps, [&] { return static_cast<Step>(random()); });
  return steps;
}

// Makes the choices of a step.
class Choice {
 public:
  explicit Choice(Step step) : random_(step) {}

  // Returns a number less than `count`, which is at least 1.
  size_t Below(size_t count) { return random_() % count; }

  bool Chance(double probability) {
    return static_cast<double>(random_()) < probability * 4294967296.0;
  }

  template <typename Container>
  const auto& Of(const Container& values) {
    return values[Below(values.size())];
  }

  // Returns small numbers of few bits.
  Values Some(size_t count) {
    constexpr std::array<double, 8> kFew = {-2, -1, -0.5, 0, 0.25, 0.5, 1, 2};
    Values values(count);
    for (double& value : values) value = Of(kFew);
    return values;
  }

 private:
  std::mt19937 random_;
};

}  // namespace backboned::client::random

#endif  // BACKBONED_TESTS_CLIENT_CPP_RANDOM_CHOICE_H_
