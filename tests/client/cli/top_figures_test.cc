#include "client/cli/top_figures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace backboned::cli {
namespace {

using ::testing::SizeIs;

v1::Instance& AddInstance(Look& look, const std::string& owner,
                          const std::string& name, int64_t forwards) {
  v1::Instance& instance = *look.list.add_instances();
  instance.set_owner(owner);
  instance.set_name(name);
  instance.set_device("cpu");
  instance.mutable_version()->set_uid(owner + name);
  instance.mutable_counters()->set_forwards(forwards);
  instance.set_memory_bytes(100);
  return instance;
}

// A look at a device that has been busy for so long.
Look LookAfter(absl::Duration since, absl::Duration busy) {
  Look look;
  look.time = absl::UnixEpoch() + since;
  look.server.set_server_uid("first");
  v1::Device& device = *look.server.add_devices();
  device.set_name("cpu");
  device.mutable_busy()->set_seconds(absl::ToInt64Seconds(busy));
  return look;
}

TEST(TopFiguresTest, ComputesRatesOfASecond) {
  Look before = LookAfter(absl::ZeroDuration(), absl::Seconds(10));
  AddInstance(before, "alice", "a", 100);
  Look after = LookAfter(absl::Seconds(4), absl::Seconds(11));
  v1::Instance& later = AddInstance(after, "alice", "a", 120);
  later.mutable_counters()->set_backwards(8);
  later.mutable_counters()->set_steps(4);
  later.mutable_counters()->set_writes(2);
  const Figures figures = Between(before, after);
  ASSERT_THAT(figures.devices, SizeIs(1));
  EXPECT_EQ(figures.devices[0].busy, 0.25);
  EXPECT_EQ(figures.devices[0].caller, "alice/a");
  ASSERT_THAT(figures.instances, SizeIs(1));
  EXPECT_EQ(figures.instances[0].forwards, 5);
  EXPECT_EQ(figures.instances[0].backwards, 2);
  EXPECT_EQ(figures.instances[0].steps, 1);
  EXPECT_EQ(figures.instances[0].writes, 0.5);
  EXPECT_EQ(figures.instances[0].calls(), 8.5);
}

TEST(TopFiguresTest, ListsThoseWithMostCallsFirstAndAddsUpTheirOwners) {
  Look before = LookAfter(absl::ZeroDuration(), absl::ZeroDuration());
  Look after = LookAfter(absl::Seconds(1), absl::ZeroDuration());
  for (Look* const look : {&before, &after}) {
    const int64_t run = look == &after ? 1 : 0;
    AddInstance(*look, "alice", "a", run);
    AddInstance(*look, "bob", "b", 10 * run).set_shared_bytes(30);
    AddInstance(*look, "bob", "c", 2 * run);
  }
  const Figures figures = Between(before, after);
  ASSERT_THAT(figures.instances, SizeIs(3));
  EXPECT_EQ(figures.instances[0].name, "b");
  EXPECT_EQ(figures.instances[1].name, "c");
  EXPECT_EQ(figures.devices[0].caller, "bob/b");
  ASSERT_THAT(figures.principals, SizeIs(2));
  EXPECT_EQ(figures.principals[0].name, "alice");
  EXPECT_EQ(figures.principals[1].calls, 12);
  EXPECT_EQ(figures.principals[1].instances, 2);
  EXPECT_EQ(figures.principals[1].memory_bytes, 200);
  EXPECT_EQ(figures.principals[1].shared_bytes, 30);
}

TEST(TopFiguresTest, HasNoRatesOfWhatIsNew) {
  Look before = LookAfter(absl::ZeroDuration(), absl::Seconds(5));
  AddInstance(before, "alice", "a", 100);
  Look after = LookAfter(absl::Seconds(1), absl::Seconds(6));
  AddInstance(after, "alice", "a", 200).mutable_version()->set_uid("another");
  const Figures made_anew = Between(before, after);
  EXPECT_EQ(made_anew.instances[0].calls(), 0);
  EXPECT_EQ(made_anew.devices[0].caller, "");
  EXPECT_EQ(made_anew.devices[0].busy, 1);
  after.list.mutable_instances(0)->mutable_version()->set_uid("alicea");
  after.server.set_server_uid("second");
  const Figures restarted = Between(before, after);
  EXPECT_EQ(restarted.instances[0].calls(), 0);
  EXPECT_EQ(restarted.devices[0].busy, 0);
}

TEST(TopFiguresTest, HasNoRatesOfNoTime) {
  const Look look = LookAfter(absl::Seconds(1), absl::Seconds(1));
  EXPECT_EQ(Between(look, look).devices[0].busy, 0);
}

}  // namespace
}  // namespace backboned::cli
