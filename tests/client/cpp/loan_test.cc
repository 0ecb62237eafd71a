#include "client/cpp/loan.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace backboned::client {
namespace {

TEST(LoanTest, EndsAtOnceWhenNothingWasLent) { Loan loan; }

TEST(LoanTest, WaitsUntilTheLastBorrowerLetsGo) {
  std::atomic<bool> about_to_let_go = false;
  std::jthread borrower;
  {
    Loan loan;
    borrower = std::jthread([&, held = loan.keep_alive()]() mutable {
      about_to_let_go = true;
      held.reset();
    });
  }
  EXPECT_TRUE(about_to_let_go);
}

}  // namespace
}  // namespace backboned::client
