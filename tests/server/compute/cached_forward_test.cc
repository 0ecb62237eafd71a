#include "server/compute/cached_forward.h"

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backbones/initial_draw.h"
#include "base/task.h"
#include "server/compute/forward.h"
#include "server/server.h"
#include "tests/backbones/tensors.h"
#include "tests/server/devices.h"
#include "tests/testing/fake_architecture.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

class CachedForwardTest : public ::testing::Test {
 protected:
  CachedForwardTest() { EXPECT_THAT(net_->OpenCache(), IsOk()); }

  // Returns a forward with the input digest `digest`.
  ForwardWork Work(const std::string& digest) {
    return {
        .instance = net_, .inputs = at::ones({2, 4}), .input_digest = digest};
  }

  ForwardDone Run(ForwardWork work) {
    absl::StatusOr<ForwardDone> done = BlockOn(
        RunForward(server_.tapes(), server_.accounts(), {}, std::move(work)));
    EXPECT_THAT(done, IsOk());
    return *std::move(done);
  }

  std::string Key(const ForwardWork& work) {
    return PlaceOf(work, *net_->state()).key;
  }

  Server server_{Devices(), 1, {.scheduling = {.max_batch = 8}}};
  std::shared_ptr<const FakeArchitecture> fake_ =
      std::make_shared<const FakeArchitecture>(4);
  std::shared_ptr<Instance> net_ = std::make_shared<Instance>(
      Instance::Identity{.name = "net", .owner = "local"}, fake_,
      *server_.workers().front(),
      InitialState(fake_->layout(), SeededGenerator(0), Devices().front()),
      Settings{.feature_cache_bytes = 100'000}, server_.cache_room());
};

TEST_F(CachedForwardTest, AnswersWithoutTheDevice) {
  const ForwardDone first = Run(Work("x"));
  EXPECT_EQ(first.cache_use, CacheUse::kKept);
  const ForwardDone again = Run(Work("x"));
  EXPECT_EQ(again.cache_use, CacheUse::kHit);
  EXPECT_TRUE(BitEqual(again.outputs[0], first.outputs[0]));
  EXPECT_TRUE(Run(Work("x")).outputs[0].is_same(again.outputs[0]));
  EXPECT_EQ(again.times.compute, absl::ZeroDuration());
  EXPECT_EQ(again.used, net_->state());
  EXPECT_EQ(fake_->forward_count(), 1);
  EXPECT_EQ(net_->counters().forwards, 1);
}

TEST_F(CachedForwardTest, WithoutADigestNothingIsKept) {
  Run(Work(""));
  EXPECT_EQ(Run(Work("")).cache_use, CacheUse::kNone);
  EXPECT_EQ(net_->cache().figures().entries, 0);
}

TEST_F(CachedForwardTest, KeysDifferIfTheAnswersMay) {
  const std::string plain = Key(Work("x"));
  EXPECT_NE(Key(Work("y")), plain);
  ForwardWork work = Work("x");
  work.options.outputs = {"out", "features"};
  EXPECT_NE(Key(work), plain);
  work = Work("x");
  work.options.prerelu = true;
  EXPECT_NE(Key(work), plain);
  work = Work("x");
  work.l2_normalize = true;
  EXPECT_NE(Key(work), plain);
  work = Work("x");
  work.output_dtype = at::kHalf;
  EXPECT_NE(Key(work), plain);
  work = Work("x");
  work.options.batch_norm = {{.eps = 0.5}};
  EXPECT_NE(Key(work), plain);
}

TEST_F(CachedForwardTest, TheElementTypeThatItHasAnywayIsNoDifference) {
  ForwardWork work = Work("x");
  work.output_dtype = at::kFloat;
  EXPECT_EQ(Key(work), Key(Work("x")));
}

TEST_F(CachedForwardTest, WhatIsComputedOfAnOlderStateIsNotKept) {
  fake_->OnForward([this] {  // On the worker, like a commit.
    auto next = std::make_shared<State>(*net_->state());
    ++next->params_version;
    net_->Publish(std::move(next));
  });
  EXPECT_EQ(Run(Work("x")).cache_use, CacheUse::kNone);
  fake_->OnForward({});
  EXPECT_EQ(net_->cache().figures().entries, 0);
  EXPECT_EQ(Run(Work("x")).used->params_version, 2U);
}

TEST_F(CachedForwardTest, ASplitAnswerIsNotExact) {
  ForwardWork work = Work("x");
  work.inputs = at::ones({20, 4});
  work.allow_merge = true;
  EXPECT_FALSE(Run(std::move(work)).exact);
  work = Work("x");
  work.inputs = at::ones({20, 4});
  const ForwardDone exact = Run(std::move(work));
  EXPECT_EQ(exact.cache_use, CacheUse::kKept);
  EXPECT_TRUE(exact.exact);
}

// R5
TEST_F(CachedForwardTest, TheOwnerPaysForWhatIsKept) {
  const auto owner = server_.accounts().Of({.principal = "local"});
  const auto caller = server_.accounts().Of({.principal = "bob"});
  ForwardWork work = Work("x");
  work.account = caller;
  {
    const ForwardDone done = Run(std::move(work));
    ASSERT_EQ(done.cache_use, CacheUse::kKept);
  }
  EXPECT_EQ(caller->live_bytes(), 0);
  EXPECT_EQ(owner->live_bytes(), 2 * 4 * static_cast<int64_t>(sizeof(float)));
  net_->MarkDeleted();
  EXPECT_EQ(owner->live_bytes(), 0);
}

TEST_F(CachedForwardTest, WithoutTheOwnersMemoryNothingIsKept) {
  const auto owner = std::make_shared<MemoryAccount>("max-memory-bytes", 8);
  ForwardDone done;
  done.outputs = {at::ones({2, 4})};
  KeepCached(net_->cache(), PlaceOf(Work("x"), *net_->state()), owner, done);
  EXPECT_EQ(done.cache_use, CacheUse::kNone);
  EXPECT_EQ(net_->cache().figures().entries, 0);
  EXPECT_EQ(owner->live_bytes(), 0);
}

TEST_F(CachedForwardTest, RowsOfABatchAreKeptWithoutTheBatch) {
  const CachePlace place = PlaceOf(Work("x"), *net_->state());
  const at::Tensor batch = Rand(1, {64, 4});
  ForwardDone done;
  done.outputs = {batch.narrow(0, 10, 2)};
  KeepCached(net_->cache(), place, /*owner=*/nullptr, done);
  const auto kept = net_->cache().Find(place.version, place.key, {});
  ASSERT_TRUE(kept.has_value());
  EXPECT_TRUE(BitEqual(kept->outputs[0], batch.narrow(0, 10, 2)));
  EXPECT_EQ(kept->outputs[0].storage().nbytes(), 2U * 4 * sizeof(float));
}

TEST_F(CachedForwardTest, ADeletedInstanceKeepsNothing) {
  ASSERT_THAT(server_.registry().Add(net_), IsOk());
  Run(Work("x"));
  EXPECT_EQ(server_.cache_room()->used(), 100'000);
  ASSERT_THAT(server_.DeleteInstance(*net_), IsOk());
  EXPECT_EQ(net_->cache().figures().entries, 0);
  EXPECT_EQ(server_.cache_room()->used(), 0);
}

}  // namespace
}  // namespace backboned
