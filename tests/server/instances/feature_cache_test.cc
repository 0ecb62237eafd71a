#include "server/instances/feature_cache.h"

#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/errors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::HasSubstr;

constexpr FeatureCache::Version kFirst = {.params = 1, .buffers = 1};
constexpr FeatureCache::Version kSecond = {.params = 2, .buffers = 1};
constexpr int64_t kTensorBytes = 400;
constexpr int64_t kAnswerBytes = FeatureCache::kEntryBytes + kTensorBytes;

class FeatureCacheTest : public ::testing::Test {
 protected:
  FeatureCacheTest() { EXPECT_THAT(cache_.Resize(3 * kAnswerBytes), IsOk()); }

  // Returns an answer of 100 float32 numbers.
  static FeatureCache::Answer Answer(double value, bool exact = true) {
    return {.outputs = {at::full({100}, value)}, .exact = exact};
  }

  CacheUse Insert(const std::string& key, double value, bool exact = true) {
    return cache_.Insert(kFirst, key, Answer(value, exact));
  }

  // Returns the value of the answer's elements; -1 if there is none.
  double Find(const std::string& key, FeatureCache::Wanted wanted = {}) {
    const auto found = cache_.Find(kFirst, key, wanted);
    return found ? found->outputs.at(0)[0].item<double>() : -1;
  }

  std::shared_ptr<Budget> room_ = std::make_shared<Budget>(
      Budget::Options{.name = "max-cache-bytes",
                      .limit = 10'000,
                      .quotas = {.principals = {{"anna", 0.5}}}});
  FeatureCache cache_{room_, {"local"}, kFirst};
};

TEST_F(FeatureCacheTest, GivesTheTensorsThatItWasGiven) {
  const FeatureCache::Answer given = Answer(7);
  EXPECT_EQ(cache_.Insert(kFirst, "x", given), CacheUse::kKept);
  const auto found = cache_.Find(kFirst, "x", {});
  ASSERT_TRUE(found.has_value());
  EXPECT_TRUE(found->outputs[0].is_same(given.outputs[0]));
  EXPECT_EQ(Find("y"), -1);
}

TEST_F(FeatureCacheTest, CountsWhatItAnsweredAndWhatNot) {
  Insert("x", 1);
  Find("x");
  Find("x", {.by_digest = true});
  Find("y");
  Find("z", {.by_digest = true});
  const FeatureCache::Figures figures = cache_.figures();
  EXPECT_EQ(figures.hits, 2);
  EXPECT_EQ(figures.misses, 1);
  EXPECT_EQ(figures.unknown_digests, 1);
  EXPECT_EQ(figures.entries, 1);
  EXPECT_EQ(figures.bytes, kAnswerBytes);
}

TEST_F(FeatureCacheTest, DropsTheLeastRecentlyUsedForWantOfRoom) {
  Insert("a", 1);
  Insert("b", 2);
  Insert("c", 3);
  Find("a");
  Insert("d", 4);
  EXPECT_EQ(Find("a"), 1);
  EXPECT_EQ(Find("b"), -1);
  EXPECT_EQ(Find("c"), 3);
  EXPECT_EQ(Find("d"), 4);
  EXPECT_EQ(cache_.figures().evictions, 1);
  EXPECT_EQ(cache_.figures().bytes, 3 * kAnswerBytes);
}

TEST_F(FeatureCacheTest, DoesNotKeepWhatAloneIsTooLarge) {
  Insert("a", 1);
  const int64_t elements = 3 * kAnswerBytes / 4;
  EXPECT_EQ(cache_.Insert(kFirst, "b", {.outputs = {at::full({elements}, 2)}}),
            CacheUse::kTooLarge);
  EXPECT_EQ(Find("a"), 1);
  EXPECT_EQ(cache_.figures().too_large, 1);
}

TEST_F(FeatureCacheTest, ANewVersionDropsEverything) {
  Insert("x", 1);
  cache_.MoveTo(kFirst);
  EXPECT_EQ(Find("x"), 1);
  cache_.MoveTo(kSecond);
  EXPECT_EQ(cache_.figures().entries, 0);
  EXPECT_EQ(cache_.figures().bytes, 0);
  EXPECT_EQ(Find("x"), -1);
  EXPECT_FALSE(cache_.Find(kSecond, "x", {}).has_value());
}

TEST_F(FeatureCacheTest, NeitherKeepsNorGivesWhatIsOfAnotherVersion) {
  cache_.MoveTo(kSecond);
  EXPECT_EQ(Insert("late", 1), CacheUse::kNone);
  EXPECT_EQ(cache_.Insert(kSecond, "x", Answer(2)), CacheUse::kKept);
  EXPECT_EQ(Find("x"), -1);
}

TEST_F(FeatureCacheTest, AnInexactAnswerIsForThoseWhoBearIt) {
  Insert("x", 1, /*exact=*/false);
  EXPECT_EQ(Find("x"), -1);
  EXPECT_EQ(Find("x", {.exact = false}), 1);
}

TEST_F(FeatureCacheTest, AnExactAnswerReplacesAnInexactOneAndNotTheReverse) {
  Insert("x", 1, /*exact=*/false);
  EXPECT_EQ(Insert("x", 2), CacheUse::kKept);
  EXPECT_EQ(Find("x"), 2);
  EXPECT_EQ(Insert("x", 3, /*exact=*/false), CacheUse::kKept);
  EXPECT_EQ(Find("x", {.exact = false}), 2);
  EXPECT_EQ(cache_.figures().bytes, kAnswerBytes);
}

TEST_F(FeatureCacheTest, ShrinkingDropsWhatIsOverTheLimit) {
  Insert("a", 1);
  Insert("b", 2);
  EXPECT_THAT(cache_.Resize(kAnswerBytes), IsOk());
  EXPECT_EQ(Find("a"), -1);
  EXPECT_EQ(Find("b"), 2);
  EXPECT_EQ(room_->used(), kAnswerBytes);
}

TEST_F(FeatureCacheTest, AtZeroItIsOffAndCountsNothing) {
  Insert("a", 1);
  EXPECT_THAT(cache_.Resize(0), IsOk());
  EXPECT_EQ(Insert("b", 2), CacheUse::kNone);
  EXPECT_EQ(Find("a"), -1);
  EXPECT_EQ(cache_.figures().entries, 0);
  EXPECT_EQ(cache_.figures().misses, 0);
  EXPECT_EQ(room_->used(), 0);
}

TEST_F(FeatureCacheTest, ThereIsRoomForSoManyBytesInAllCaches) {
  Insert("a", 1);
  FeatureCache other(room_, {"local"}, kFirst);
  EXPECT_THAT(other.Resize(10'000 - 3 * kAnswerBytes), IsOk());
  const absl::Status refused = cache_.Resize(3 * kAnswerBytes + 1);
  EXPECT_THAT(refused,
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("no room for 1 more byte: this server uses "
                                 "10000 of its 10000 of max-cache-bytes")));
  EXPECT_EQ(LimitOf(refused)->name, "max-cache-bytes");
  EXPECT_EQ(LimitOf(refused)->value, 10'000);
  EXPECT_EQ(LimitOf(refused)->requested, 10'001);
  EXPECT_EQ(cache_.limit_bytes(), 3 * kAnswerBytes);
  EXPECT_EQ(Find("a"), 1);
}

TEST_F(FeatureCacheTest, APrincipalsCachesHaveItsPartOfTheRoom) {
  FeatureCache annas(room_, {"anna"}, kFirst);
  const absl::Status refused = annas.Resize(5001);
  ASSERT_TRUE(LimitOf(refused).has_value()) << refused;
  EXPECT_EQ(LimitOf(refused)->value, 5000);
  EXPECT_EQ(LimitOf(refused)->scope, LimitScope::kPrincipal);
  EXPECT_THAT(annas.Resize(5000), IsOk());
}

TEST_F(FeatureCacheTest, GivesItsRoomBackWhenItGoes) {
  {
    FeatureCache other(room_, {"local"}, kFirst);
    EXPECT_THAT(other.Resize(5000), IsOk());
  }
  EXPECT_EQ(room_->used(), 3 * kAnswerBytes);
}

TEST(FeatureCacheRoomTest, WithoutARoomThereIsNoCache) {
  FeatureCache cache(nullptr, {"local"}, kFirst);
  EXPECT_THAT(cache.Resize(0), IsOk());
  EXPECT_THAT(cache.Resize(1000),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("cannot have a feature cache")));
}

TEST_F(FeatureCacheTest, KeepsItsLimitAndItsSumsFromManyThreads) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 500; ++i) {
        const std::string key = std::to_string((i * 7 + t) % 10);
        Insert(key, i);
        Find(key);
        if (i % 100 == 99) cache_.MoveTo(t % 2 == 0 ? kFirst : kSecond);
        EXPECT_LE(cache_.figures().bytes, 3 * kAnswerBytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const FeatureCache::Figures figures = cache_.figures();
  EXPECT_EQ(figures.bytes, figures.entries * kAnswerBytes);
  EXPECT_EQ(figures.hits + figures.misses, 2000);
}

}  // namespace
}  // namespace backboned
