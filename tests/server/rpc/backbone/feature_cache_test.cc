// Tests feature caches by the contract, through generated stubs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/sha.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tests/server/rpc/plain_client.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kCacheBytes = 100'000;

// Appends numbers as 64 bits each, little-endian.
void Append(std::string& text, std::initializer_list<int64_t> numbers) {
  for (int64_t number : numbers) {
    for (int i = 0; i < 8; ++i) {
      text.push_back(static_cast<char>(number >> (8 * i)));
    }
  }
}

// Returns ForwardHeader.input_digest of a float32 input [rows, 4].
std::string DigestOf(int64_t rows, const std::string& bytes) {
  std::string text;
  Append(text, {1, 0, v1::DATA_TYPE_FLOAT32, 2, rows, 4});
  text += bytes;
  std::string digest(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(),
         reinterpret_cast<unsigned char*>(digest.data()));
  return digest;
}

class FeatureCacheRpcTest : public ::testing::Test {
 protected:
  FeatureCacheRpcTest() { EXPECT_THAT(SetCache(kCacheBytes), IsOk()); }

  absl::Status SetCache(int64_t bytes) {
    v1::UpdateInstanceRequest request;
    request.set_instance("fake");
    request.mutable_update_mask()->add_paths("feature_cache_bytes");
    request.mutable_settings()->set_feature_cache_bytes(bytes);
    return client_.UpdateInstance(request).status();
  }

  v1::Instance Get() { return client_.GetInstance()->instance(); }
  v1::FeatureCache Cache() { return Get().feature_cache(); }

  // Returns a forward that asks for `out` of x_ by its digest.
  v1::ForwardHeader Asking() {
    v1::ForwardHeader header;
    header.set_input_digest(DigestOf(1, x_));
    return header;
  }

  static auto IsMiss() {
    return FailsWith(absl::StatusCode::kNotFound, v1::ERROR_REASON_CACHE_MISS,
                     HasSubstr("instance \"fake\" has no answer for this"));
  }

  static auto IsRefused(const std::string& message) {
    return FailsWith(absl::StatusCode::kInvalidArgument,
                     v1::ERROR_REASON_INVALID_OPTION, HasSubstr(message));
  }

  TestServer server_;
  PlainClient client_{server_};
  std::string x_ = Bytes({1, 2, 3, 4});
};

TEST_F(FeatureCacheRpcTest, AnEqualInputIsNotComputedAgain) {
  const auto first = client_.Forward(ForwardOf(1), x_);
  ASSERT_THAT(first, IsOk());
  EXPECT_EQ(first->header.cache_use(), v1::CACHE_USE_KEPT);
  const auto again = client_.Forward(ForwardOf(1), x_);
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->header.cache_use(), v1::CACHE_USE_HIT);
  EXPECT_THAT(Floats(again->bytes), ElementsAre(6, 12, 18, 24));
  EXPECT_EQ(again->header.version().params(), 1U);
  EXPECT_EQ(again->header.timings().queue().nanos(), 0);
  EXPECT_EQ(again->header.timings().compute().nanos(), 0);
  EXPECT_EQ(server_.forward_count(), 1);
  EXPECT_EQ(Get().counters().forwards(), 1);
}

TEST_F(FeatureCacheRpcTest, TheDigestIsEnoughForWhatIsThere) {
  EXPECT_THAT(client_.Forward(Asking(), ""), IsMiss());
  const auto computed = client_.Forward(ForwardOf(1), x_);
  const auto cached = client_.Forward(Asking(), "");
  ASSERT_THAT(cached, IsOk());
  EXPECT_EQ(cached->bytes, computed->bytes);
  EXPECT_EQ(cached->header.outputs(0).name(), "out");
  EXPECT_EQ(cached->header.version().uid(), computed->header.version().uid());
  EXPECT_EQ(cached->header.cache_use(), v1::CACHE_USE_HIT);
  EXPECT_EQ(server_.forward_count(), 1);
}

TEST_F(FeatureCacheRpcTest, CountsWhatItAnswered) {
  client_.Forward(Asking(), "").IgnoreError();
  client_.Forward(ForwardOf(1), x_).IgnoreError();
  client_.Forward(ForwardOf(1), x_).IgnoreError();
  client_.Forward(Asking(), "").IgnoreError();
  const v1::FeatureCache cache = Cache();
  EXPECT_EQ(cache.hits(), 2);
  EXPECT_EQ(cache.misses(), 1);
  EXPECT_EQ(cache.unknown_digests(), 1);
  EXPECT_EQ(cache.entries(), 1);
  EXPECT_EQ(cache.bytes(), 512 + 16);
  EXPECT_EQ(Get().settings().feature_cache_bytes(), kCacheBytes);
}

TEST_F(FeatureCacheRpcTest, ItIsOffUntilItIsAskedFor) {
  server_.AddFake("plain");
  v1::ForwardHeader header = ForwardOf(1);
  header.set_instance("plain");
  const auto first = client_.Forward(header, x_);
  ASSERT_THAT(first, IsOk());
  EXPECT_EQ(first->header.cache_use(), v1::CACHE_USE_UNSPECIFIED);
  header = Asking();
  header.set_instance("plain");
  EXPECT_THAT(
      client_.Forward(header, ""),
      FailsWith(absl::StatusCode::kNotFound, v1::ERROR_REASON_CACHE_MISS,
                HasSubstr("instance \"plain\" is off")));
}

TEST_F(FeatureCacheRpcTest, WhatIsAskedForIsPartOfTheQuestion) {
  ASSERT_THAT(client_.Forward(ForwardOf(1), x_), IsOk());
  v1::ForwardHeader features = Asking();
  features.set_return_type(v1::RETURN_TYPE_FEATURES);
  EXPECT_THAT(client_.Forward(features, ""), IsMiss());
  v1::ForwardHeader narrow = Asking();
  narrow.set_output_dtype(v1::DATA_TYPE_FLOAT16);
  EXPECT_THAT(client_.Forward(narrow, ""), IsMiss());
  v1::ForwardHeader sharper = Asking();
  sharper.add_batch_norm()->set_eps(0.5);
  EXPECT_THAT(client_.Forward(sharper, ""), IsMiss());
  v1::ForwardHeader equal = Asking();
  equal.set_return_type(v1::RETURN_TYPE_OUT);
  equal.set_output_dtype(v1::DATA_TYPE_FLOAT32);
  EXPECT_THAT(client_.Forward(equal, ""), IsOk());
}

TEST_F(FeatureCacheRpcTest, TheShapeIsPartOfTheInput) {
  const std::string two = x_ + x_;
  ASSERT_THAT(client_.Forward(ForwardOf(2), two), IsOk());
  v1::ForwardHeader header;
  header.set_input_digest(DigestOf(1, two));
  EXPECT_THAT(client_.Forward(header, ""), IsMiss());
  header.set_input_digest(DigestOf(2, two));
  EXPECT_THAT(client_.Forward(header, ""), IsOk());
}

TEST_F(FeatureCacheRpcTest, NothingIsAnsweredOfParametersThatChanged) {
  ASSERT_THAT(client_.Forward(ForwardOf(1), x_), IsOk());
  const std::string ones = Bytes(std::vector<float>(kElements, 1));
  ASSERT_THAT(client_.SetParams(SetParamsOf(kElements), ones), IsOk());
  EXPECT_EQ(Cache().entries(), 0);
  EXPECT_THAT(client_.Forward(Asking(), ""), IsMiss());
  const auto again = client_.Forward(ForwardOf(1), x_);
  EXPECT_EQ(again->header.cache_use(), v1::CACHE_USE_KEPT);
  EXPECT_THAT(Floats(again->bytes), ElementsAre(1, 2, 3, 4));
}

TEST_F(FeatureCacheRpcTest, AStepDropsWhatWasKept) {
  const auto taped = client_.Forward(TapedForwardOf(1), x_);
  v1::BackwardHeader backward = BackwardOf(taped->header.tape_id(), 1);
  backward.set_accumulate(true);
  ASSERT_THAT(client_.Backward(backward, x_), IsOk());
  v1::ConfigureOptimizerRequest optimizer;
  optimizer.mutable_optimizer()->set_kind(v1::OPTIMIZER_KIND_SGD);
  optimizer.mutable_optimizer()->add_groups();
  ASSERT_THAT(client_.ConfigureOptimizer(optimizer), IsOk());
  ASSERT_THAT(client_.Forward(ForwardOf(1), x_), IsOk());
  EXPECT_THAT(client_.Forward(Asking(), ""), IsOk());
  ASSERT_THAT(client_.Step(), IsOk());
  EXPECT_THAT(client_.Forward(Asking(), ""), IsMiss());
}

TEST_F(FeatureCacheRpcTest, BuffersThatChangeDropWhatWasKept) {
  ASSERT_THAT(client_.Forward(ForwardOf(1), x_), IsOk());
  v1::ForwardHeader training = ForwardOf(2);
  training.set_training(true);
  ASSERT_THAT(client_.Forward(training, x_ + x_), IsOk());
  EXPECT_THAT(client_.Forward(Asking(), ""), IsMiss());
}

TEST_F(FeatureCacheRpcTest, BuffersThatAreSetDropWhatWasKept) {
  ASSERT_THAT(client_.Forward(ForwardOf(1), x_), IsOk());
  const auto buffers = client_.GetBuffers();
  ASSERT_THAT(buffers, IsOk());
  v1::SetBuffersHeader header;
  *header.mutable_buffers() = buffers->header.buffers();
  ASSERT_THAT(client_.SetBuffers(header, buffers->bytes), IsOk());
  EXPECT_THAT(client_.Forward(Asking(), ""), IsMiss());
}

TEST_F(FeatureCacheRpcTest, ARepetitionGetsTheRecordedAnswer) {
  ASSERT_THAT(client_.Forward(ForwardOf(1), x_), IsOk());
  v1::ForwardHeader header = Asking();
  header.set_request_id("once");
  const auto first = client_.Forward(header, "");
  ASSERT_THAT(first, IsOk());
  EXPECT_THAT(SetCache(0), IsOk());
  const auto again = client_.Forward(header, "");
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->bytes, first->bytes);
}

TEST_F(FeatureCacheRpcTest, AMissLeavesTheRequestIdForTheInput) {
  v1::ForwardHeader header = Asking();
  header.set_request_id("once");
  EXPECT_THAT(client_.Forward(header, ""), IsMiss());
  header = ForwardOf(1);
  header.set_request_id("once");
  EXPECT_THAT(client_.Forward(header, x_), IsOk());
}

TEST_F(FeatureCacheRpcTest, WritesOfGradientsAndSettingsDropNothing) {
  ASSERT_THAT(client_.Forward(ForwardOf(1), x_), IsOk());
  ASSERT_THAT(client_.ZeroGrads(), IsOk());
  EXPECT_THAT(SetCache(2 * kCacheBytes), IsOk());
  EXPECT_THAT(client_.Forward(Asking(), ""), IsOk());
}

TEST_F(FeatureCacheRpcTest, OnlyForwardsInEvaluationAreKept) {
  v1::ForwardHeader training = ForwardOf(2);
  training.set_training(true);
  v1::ForwardHeader layer = ForwardOf(2);
  layer.add_batch_norm()->set_training(true);
  layer.mutable_batch_norm(0)->set_track_running_stats(false);
  v1::ForwardHeader buffers = ForwardOf(2);
  buffers.set_return_buffers(true);
  for (const v1::ForwardHeader& header :
       {TapedForwardOf(2), training, layer, buffers}) {
    const auto computed = client_.Forward(header, x_ + x_);
    ASSERT_THAT(computed, IsOk());
    EXPECT_EQ(computed->header.cache_use(), v1::CACHE_USE_UNSPECIFIED);
    v1::ForwardHeader asking = header;
    asking.clear_inputs();
    asking.set_input_digest(DigestOf(2, x_ + x_));
    EXPECT_THAT(client_.Forward(asking, ""),
                IsRefused("input_digest needs a forward in evaluation"));
  }
  EXPECT_EQ(Cache().entries(), 0);
}

TEST_F(FeatureCacheRpcTest, RefusesADigestOfAnotherLength) {
  v1::ForwardHeader header;
  header.set_input_digest("short");
  EXPECT_THAT(client_.Forward(header, ""),
              IsRefused("input_digest has 5 bytes, expected 32"));
}

TEST_F(FeatureCacheRpcTest, RefusesADigestBesideAnInput) {
  v1::ForwardHeader header = ForwardOf(1);
  header.set_input_digest(DigestOf(1, x_));
  EXPECT_THAT(client_.Forward(header, x_),
              IsRefused("either inputs or input_digest"));
}

TEST_F(FeatureCacheRpcTest, RefusesBytesBehindADigest) {
  EXPECT_THAT(client_.Forward(Asking(), x_),
              FailsWith(absl::StatusCode::kInvalidArgument,
                        v1::ERROR_REASON_MALFORMED_STREAM,
                        HasSubstr("the tensors end at byte 0")));
}

TEST_F(FeatureCacheRpcTest, TheVersionThatIsAskedForIsTheOneThatAnswers) {
  ASSERT_THAT(client_.Forward(ForwardOf(1), x_), IsOk());
  v1::ForwardHeader header = Asking();
  header.mutable_if_version()->set_params(1);
  EXPECT_THAT(client_.Forward(header, ""), IsOk());
  header.mutable_if_version()->set_params(2);
  EXPECT_THAT(
      client_.Forward(header, ""),
      FailsWith(absl::StatusCode::kAborted, v1::ERROR_REASON_STALE_VERSION,
                HasSubstr("has params 2, the")));
}

TEST_F(FeatureCacheRpcTest, AnAnswerThatRanAloneIsForAll) {
  v1::ForwardHeader merging = ForwardOf(1);
  merging.set_allow_merge(true);
  ASSERT_THAT(client_.Forward(merging, x_), IsOk());
  EXPECT_THAT(client_.Forward(Asking(), ""), IsOk());
}

TEST_F(FeatureCacheRpcTest, AnAnswerThatWasSplitIsForWhoAllowsMerging) {
  constexpr int64_t kRows = 100;  // More than a batch has.
  std::string rows;
  for (int64_t i = 0; i < kRows; ++i) rows += x_;
  v1::ForwardHeader merging = ForwardOf(kRows);
  merging.set_allow_merge(true);
  ASSERT_THAT(client_.Forward(merging, rows), IsOk());
  v1::ForwardHeader asking;
  asking.set_input_digest(DigestOf(kRows, rows));
  EXPECT_THAT(client_.Forward(asking, ""), IsMiss());
  asking.set_allow_merge(true);
  EXPECT_THAT(client_.Forward(asking, ""), IsOk());

  ASSERT_THAT(client_.Forward(ForwardOf(kRows), rows), IsOk());
  asking.set_allow_merge(false);
  EXPECT_THAT(client_.Forward(asking, ""), IsOk());
}

TEST_F(FeatureCacheRpcTest, ExtractIsAnsweredToo) {
  v1::ExtractRequest request;
  *request.mutable_input() = FloatSpec({1, 4});
  request.set_data(x_);
  const auto first = client_.Extract(request);
  ASSERT_THAT(first, IsOk());
  EXPECT_EQ(first->cache_use(), v1::CACHE_USE_KEPT);
  const auto again = client_.Extract(request);
  EXPECT_EQ(again->cache_use(), v1::CACHE_USE_HIT);
  EXPECT_EQ(again->data(), first->data());
  EXPECT_EQ(again->digest(), first->digest());
  request.set_l2_normalize(true);
  EXPECT_EQ(client_.Extract(request)->cache_use(), v1::CACHE_USE_KEPT);
  v1::ForwardHeader features = Asking();
  features.set_return_type(v1::RETURN_TYPE_FEATURES);
  EXPECT_EQ(client_.Forward(features, "")->bytes, first->data());
}

TEST_F(FeatureCacheRpcTest, AnAnswerThatDoesNotFitIsGivenAndNotKept) {
  EXPECT_THAT(SetCache(600), IsOk());
  std::string rows;
  for (int i = 0; i < 8; ++i) rows += x_;
  const auto large = client_.Forward(ForwardOf(8), rows);
  ASSERT_THAT(large, IsOk());
  EXPECT_EQ(large->header.cache_use(), v1::CACHE_USE_TOO_LARGE);
  EXPECT_EQ(Cache().too_large(), 1);
  ASSERT_THAT(client_.Forward(ForwardOf(1), x_), IsOk());
  EXPECT_THAT(client_.Forward(Asking(), ""), IsOk());
}

TEST_F(FeatureCacheRpcTest, RefusesACacheThatNoAnswerFits) {
  for (int64_t bytes : {int64_t{-1}, int64_t{511}}) {
    EXPECT_THAT(SetCache(bytes), IsRefused("must be 0 (off) or at least 512"));
  }
  EXPECT_EQ(Get().settings().feature_cache_bytes(), kCacheBytes);

  v1::CreateInstanceRequest request;
  request.set_benchmark("seq-mnist");
  request.mutable_settings()->set_feature_cache_bytes(551);
  EXPECT_THAT(
      client_.CreateInstance(request),
      IsRefused("feature_cache_bytes is 551, must be 0 (off) or at least 552"));
  EXPECT_EQ(client_.ListInstances()->instances_size(), 1);
}

TEST_F(FeatureCacheRpcTest, ACloneAndANewInstanceHaveTheirOwn) {
  ASSERT_THAT(client_.Forward(ForwardOf(1), x_), IsOk());
  v1::CloneInstanceRequest clone;
  clone.set_instance("fake");
  clone.set_name("twin");
  EXPECT_EQ(
      client_.CloneInstance(clone)->instance().settings().feature_cache_bytes(),
      0);
  clone.set_name("cached");
  clone.mutable_settings()->set_feature_cache_bytes(kCacheBytes);
  ASSERT_THAT(client_.CloneInstance(clone), IsOk());
  v1::ForwardHeader header = Asking();
  header.set_instance("cached");
  EXPECT_THAT(
      client_.Forward(header, ""),
      FailsWith(absl::StatusCode::kNotFound, v1::ERROR_REASON_CACHE_MISS,
                HasSubstr("instance \"cached\" has no answer")));
}

TEST(FeatureCacheLimitTest, AllCachesTogetherHaveTheServersBytes) {
  TestServer server({.limits = {.max_cache_bytes = 10'000, .quotas = {}}});
  PlainClient client(server);
  EXPECT_EQ(client.GetServer()->limits().max_cache_bytes(), 10'000);
  v1::CloneInstanceRequest first;
  first.set_instance("fake");
  first.set_name("first");
  first.mutable_settings()->set_feature_cache_bytes(6000);
  ASSERT_THAT(client.CloneInstance(first), IsOk());

  v1::CloneInstanceRequest second = first;
  second.set_name("second");
  const auto refused = client.CloneInstance(second);
  EXPECT_THAT(refused, RefusedBy("max-cache-bytes", 10'000));
  EXPECT_EQ(client::DetailOf(refused.status())->requested_value(), 12'000);
  EXPECT_FALSE(client::DetailOf(refused.status())->has_retry_delay());
  EXPECT_EQ(client.ListInstances()->instances_size(), 2);

  v1::DeleteInstanceRequest gone;
  gone.set_instance("first");
  ASSERT_THAT(client.DeleteInstance(gone), IsOk());
  EXPECT_THAT(client.CloneInstance(second), IsOk());
}

}  // namespace
}  // namespace backboned
