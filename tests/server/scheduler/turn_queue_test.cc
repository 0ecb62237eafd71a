#include "server/scheduler/turn_queue.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

namespace backboned {
namespace {

// Serves the member whose turn it is, at `cost`; it wants more at once.
std::string Serve(TurnQueue& queue, double cost, uint64_t& arrival) {
  const std::string member = queue.Next().value_or("nobody");
  queue.Begin(member, /*its_turn=*/true);
  queue.SetFirst(member, ++arrival);
  queue.Charge(member, cost);
  return member;
}

TEST(TurnQueueTest, NobodyIsNextWhenNobodyWantsAnything) {
  TurnQueue queue;
  EXPECT_EQ(queue.Next(), std::nullopt);
  queue.SetFirst("a", 1);
  queue.SetFirst("a", std::nullopt);
  EXPECT_EQ(queue.Next(), std::nullopt);
  EXPECT_EQ(queue.size(), 0);
}

TEST(TurnQueueTest, ArrivalDecidesBetweenEqualTags) {
  TurnQueue queue;
  queue.SetFirst("a", 8);
  queue.SetFirst("b", 7);
  EXPECT_EQ(queue.Next(), "b");
}

TEST(TurnQueueTest, WhoHadLessIsNext) {
  TurnQueue queue;
  uint64_t arrival = 2;
  queue.SetFirst("a", 1);
  queue.SetFirst("b", 2);
  EXPECT_EQ(Serve(queue, 3, arrival), "a");
  EXPECT_EQ(Serve(queue, 1, arrival), "b");
  EXPECT_EQ(Serve(queue, 1, arrival), "b");
  EXPECT_EQ(Serve(queue, 1, arrival), "b");
  EXPECT_EQ(Serve(queue, 1, arrival), "a");  // Both had 3; it arrived before.
}

TEST(TurnQueueTest, RestSavesNothingUp) {
  TurnQueue queue;
  uint64_t arrival = 1;
  queue.SetFirst("busy", 1);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Serve(queue, 1, arrival), "busy");
  queue.SetFirst("late", ++arrival);
  EXPECT_EQ(Serve(queue, 1, arrival), "late");
  EXPECT_EQ(Serve(queue, 1, arrival), "busy");
  EXPECT_EQ(Serve(queue, 1, arrival), "late");
}

TEST(TurnQueueTest, RestPaysOffWhatWasHadTooMuch) {
  TurnQueue queue;
  uint64_t arrival = 2;
  queue.SetFirst("a", 1);
  queue.SetFirst("b", 2);
  EXPECT_EQ(Serve(queue, 5, arrival), "a");
  queue.SetFirst("a", std::nullopt);
  EXPECT_EQ(Serve(queue, 1, arrival), "b");
  queue.SetFirst("a", ++arrival);  // Its tag is still 5.
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Serve(queue, 1, arrival), "b");
  EXPECT_EQ(Serve(queue, 1, arrival), "a");
}

TEST(TurnQueueTest, WhoIsServedAlongPaysAsWell) {
  TurnQueue queue;
  uint64_t arrival = 3;
  queue.SetFirst("a", 1);
  queue.SetFirst("b", 2);
  queue.SetFirst("c", 3);
  for (const bool its_turn : {true, false}) {
    const std::string member = its_turn ? "a" : "b";
    queue.Begin(member, its_turn);
    queue.SetFirst(member, std::nullopt);
  }
  queue.Charge("a", 1);
  queue.Charge("b", 1);
  queue.SetFirst("a", ++arrival);
  queue.SetFirst("b", ++arrival);
  EXPECT_EQ(Serve(queue, 1, arrival), "c");
}

TEST(TurnQueueTest, ForgetsWhoRests) {
  TurnQueue queue;
  uint64_t arrival = 2;
  queue.SetFirst("a", 1);
  queue.SetFirst("b", 2);
  EXPECT_EQ(Serve(queue, 1, arrival), "a");
  queue.SetFirst("a", std::nullopt);
  EXPECT_EQ(queue.size(), 2);  // It is ahead of its share.
  for (int i = 0; i < 2; ++i) EXPECT_EQ(Serve(queue, 1, arrival), "b");
  EXPECT_EQ(queue.size(), 1);
}

}  // namespace
}  // namespace backboned
