#include "server/device/graph_cache.h"

#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/server/devices.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using Tensors = GraphCache::Tensors;

// Only for the fake device, whose library of graphs says what one cannot have.
class GraphCacheTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (gpu_.is_cpu()) GTEST_SKIP() << "is for `ctest --preset fake-cuda`";
    ASSERT_THAT(GraphCache::Load(), IsOk());
  }

  at::Tensor Full(double value, int64_t count = 4) {
    return at::full({count}, value, at::device(gpu_).dtype(at::kFloat));
  }

  // Returns 2 * value + added by a function that adds `added`.
  double Run(GraphCache& cache, double value, double added = 1,
             const std::string& key = "key", int64_t count = 4) {
    const auto function = [this, added](const Tensors& inputs) {
      ++calls_;
      return Tensors{inputs[0].mul(2).add(added), at::Tensor()};
    };
    const Tensors results =
        cache.Run(key, {Full(value, count), at::Tensor()}, function).tensors;
    EXPECT_FALSE(results[1].defined());
    return results[0][count - 1].item<double>();
  }

  const c10::Device gpu_ = Devices().front();
  int calls_ = 0;
};

TEST_F(GraphCacheTest, RecordsAtTheThirdCallAndReplaysFromThenOn) {
  GraphCache cache(gpu_, int64_t{1} << 20);
  for (int call = 1; call <= 5; ++call) {
    EXPECT_EQ(Run(cache, call), 2 * call + 1);
    EXPECT_EQ(cache.replays(), call < 3 ? 0 : call - 2);
  }
}

TEST_F(GraphCacheTest, AReplayKeepsWhatTheFunctionWas) {
  GraphCache cache(gpu_, int64_t{1} << 20);
  for (int call = 1; call <= 3; ++call) Run(cache, call);
  EXPECT_EQ(Run(cache, 1, /*added=*/5), 3) << "so the key must say it";
}

TEST_F(GraphCacheTest, KeysAndShapesHaveGraphsOfTheirOwn) {
  GraphCache cache(gpu_, int64_t{1} << 20);
  for (int call = 1; call <= 4; ++call) {
    EXPECT_EQ(Run(cache, call, 1, "one"), 2 * call + 1);
    EXPECT_EQ(Run(cache, call, 5, "other"), 2 * call + 5);
    EXPECT_EQ(Run(cache, call, 1, "one", 7), 2 * call + 1);
  }
  EXPECT_EQ(cache.replays(), 3 * 2);
}

TEST_F(GraphCacheTest, ResultsHaveMemoryOfTheirOwn) {
  GraphCache cache(gpu_, int64_t{1} << 20);
  // As a real graph, writes the same memory each time.
  const auto function = [out = Full(0)](const Tensors& inputs) {
    out.copy_(inputs[0]);
    return Tensors{out};
  };
  std::vector<at::Tensor> replayed;
  for (int call = 1; call <= 5; ++call) {
    const Tensors results = cache.Run("key", {Full(call)}, function).tensors;
    if (cache.replays() > 0) replayed.push_back(results[0]);
  }
  ASSERT_EQ(replayed.size(), 3);
  for (size_t i = 0; i < replayed.size(); ++i) {
    EXPECT_EQ(replayed[i][0].item<double>(), static_cast<double>(i) + 3);
  }
}

TEST_F(GraphCacheTest, AReplayGivesTheFunctionsNumber) {
  GraphCache cache(gpu_, int64_t{1} << 20);
  const auto function = [](const Tensors& inputs) {
    return GraphCache::Result({inputs[0].mul(2)}, inputs[0].numel());
  };
  for (int call = 1; call <= 5; ++call) {
    EXPECT_EQ(cache.Run("key", {Full(call, 3)}, function).number, 3);
  }
  EXPECT_EQ(cache.replays(), 3);
}

TEST_F(GraphCacheTest, WhatWaitsStaysEager) {
  GraphCache cache(gpu_, int64_t{1} << 20);
  const auto function = [](const Tensors& inputs) {
    return Tensors{inputs[0].mul(inputs[0][0].item<double>())};
  };
  for (int call = 1; call <= 5; ++call) {
    EXPECT_EQ(
        cache.Run("key", {Full(call)}, function).tensors[0][1].item<double>(),
        call * call);
  }
  EXPECT_EQ(cache.replays(), 0);
}

TEST_F(GraphCacheTest, ForgetsTheLongestUnusedForRoom) {
  Full(0, 16'000'000);  // Pooled: so each graph has its input's 4 MB alone.
  GraphCache cache(gpu_, 10'000'000);
  const auto run = [&](const std::string& key) {
    const int64_t before = cache.replays();
    EXPECT_EQ(Run(cache, 1, 1, key, 1'000'000), 3);
    return cache.replays() > before;
  };
  for (int call = 1; call <= 3; ++call) run("a"), run("b");
  EXPECT_TRUE(run("a"));
  for (int call = 1; call <= 3; ++call) run("c");
  EXPECT_TRUE(run("c"));
  EXPECT_TRUE(run("a"));
  EXPECT_FALSE(run("b"));
}

TEST_F(GraphCacheTest, OneThatIsTooLargeStaysEager) {
  GraphCache cache(gpu_, 1'000'000);
  for (int call = 1; call <= 5; ++call) {
    EXPECT_EQ(Run(cache, call, 1, "key", 1'000'000), 2 * call + 1);
  }
  EXPECT_EQ(cache.replays(), 0);
  EXPECT_FALSE(cache.Clear());
}

TEST_F(GraphCacheTest, ClearForgetsAll) {
  GraphCache cache(gpu_, int64_t{1} << 20);
  EXPECT_FALSE(cache.Clear());
  for (int call = 1; call <= 3; ++call) Run(cache, call);
  EXPECT_TRUE(cache.Clear());
  EXPECT_EQ(Run(cache, 1), 3);
  EXPECT_EQ(cache.replays(), 1);
}

}  // namespace
}  // namespace backboned
