// Tests the client's verbs with a real server, whose backbone has known
// gradients (tests/testing/fake_architecture.h): scale is 2, head is 3.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "client/cpp/client.h"
#include "client/cpp/error.h"
#include "proto/wire/input_digest.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_server.h"

namespace backboned::client {
namespace {

using ::absl::StatusCode;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::Pointwise;
using ::testing::SizeIs;

v1::TensorSpec FloatSpec(const std::vector<int64_t>& shape,
                         const std::string& name = "") {
  v1::TensorSpec spec;
  spec.set_name(name);
  spec.set_dtype(v1::DATA_TYPE_FLOAT32);
  spec.mutable_shape()->Assign(shape.begin(), shape.end());
  return spec;
}

Source AsSource(const std::vector<float>& values) {
  return std::as_bytes(std::span(values));
}

// Returns all tensors of an answer, each as a source.
Sources AsSources(const Tensors& tensors) {
  return {tensors.spans().begin(), tensors.spans().end()};
}

std::vector<float> Values(const Tensors& tensors, size_t index) {
  const std::span<float> values = tensors.As<float>(index);
  return {values.begin(), values.end()};
}

// Returns `count` elements of value `value`.
std::vector<float> All(size_t count, float value) {
  return std::vector<float>(count, value);
}

v1::ForwardHeader ForwardOf(int64_t rows) {
  v1::ForwardHeader header;
  *header.add_inputs() = FloatSpec({rows, 4});
  return header;
}

v1::Optimizer Sgd(double lr, double momentum = 0) {
  v1::Optimizer optimizer;
  optimizer.set_kind(v1::OPTIMIZER_KIND_SGD);
  optimizer.add_groups()->set_lr(lr);
  optimizer.mutable_groups(0)->set_momentum(momentum);
  return optimizer;
}

class VerbsTest : public testing::Test {
 protected:
  void Configure(const Backbone& net, const v1::Optimizer& optimizer) {
    v1::ConfigureOptimizerRequest request;
    *request.mutable_optimizer() = optimizer;
    const auto answer = net.ConfigureOptimizer(request);
    ASSERT_THAT(answer, IsOk());
    EXPECT_EQ(answer->optimizer().groups(0).lr(), optimizer.groups(0).lr());
  }

  // Keeps the forward of a row of `value`, and returns its tape.
  std::string Tape(float value) {
    v1::ForwardHeader header = ForwardOf(1);
    header.set_tape(true);
    header.set_input_grad(true);
    const std::vector<float> input = All(4, value);
    return net_.Forward(header, {AsSource(input)}).value().result.tape_id();
  }

  // Returns a backward of two tapes, of the inputs 1 and 2, with all results.
  v1::BackwardHeader WholeBackward() {
    v1::BackwardHeader header;
    for (const float value : {1.0F, 2.0F}) {
      v1::TapeGradients& tape = *header.add_tapes();
      tape.set_tape_id(Tape(value));
      *tape.add_gradients() = FloatSpec({1, 4}, "out");
    }
    header.set_return_grads(true);
    header.set_input_grad(true);
    header.set_per_tape_grads(true);
    header.set_squared_grads(true);
    return header;
  }

  std::vector<float> Params(const Backbone& net) {
    return Values(net.GetParams().value().tensors, 0);
  }

  TestServer server_;
  const Client client_{server_.channel()};
  const Backbone net_ = client_.backbone("fake");
  const std::vector<float> ones_ = All(4, 1);
};

// Matches a flat gradient of the fake: scale's elements, then head's.
auto Flat(float scale, float head) {
  return ElementsAre(scale, scale, scale, scale, head, head, head, head);
}

TEST_F(VerbsTest, BackwardBringsEveryKindOfGradient) {
  const auto answer =
      net_.Backward(WholeBackward(), {AsSource(ones_), AsSource(ones_)});
  ASSERT_THAT(answer, IsOk());
  ASSERT_EQ(answer->tensors.size(), 6);
  EXPECT_THAT(Values(answer->tensors, 0), Flat(9, 6));
  EXPECT_THAT(Values(answer->tensors, 1), Each(6));
  EXPECT_THAT(Values(answer->tensors, 2), Each(6));
  EXPECT_THAT(Values(answer->tensors, 3), Flat(3, 2));
  EXPECT_THAT(Values(answer->tensors, 4), Flat(6, 4));
  EXPECT_THAT(Values(answer->tensors, 5), Flat(9 + 36, 4 + 16));
  EXPECT_THAT(answer->result.squared_grads().present(),
              ElementsAre(true, false, false, true));
}

TEST_F(VerbsTest, BackwardFillsTheCallersMemoryWithEveryKindOfGradient) {
  v1::BackwardHeader header = WholeBackward();
  header.set_retain(true);
  const Sources sources = {AsSource(ones_), AsSource(ones_)};
  std::vector<float> place = All(8 + 4 + 4 + 8 + 8 + 8, -1);
  ASSERT_THAT(net_.Backward(header, sources,
                            {std::as_writable_bytes(std::span(place))}),
              IsOk());
  const auto answer = net_.Backward(header, sources);
  ASSERT_THAT(answer, IsOk());
  std::vector<float> owned;
  for (size_t i = 0; i < answer->tensors.size(); ++i) {
    const std::vector<float> values = Values(answer->tensors, i);
    owned.insert(owned.end(), values.begin(), values.end());
  }
  EXPECT_EQ(place, owned);
}

TEST_F(VerbsTest, BackwardAccumulatesAndSteps) {
  Configure(net_, Sgd(1));
  v1::BackwardHeader header;
  header.add_tapes()->set_tape_id(Tape(1));
  *header.mutable_tapes(0)->add_gradients() = FloatSpec({1, 4}, "out");
  header.set_accumulate(true);
  header.mutable_step();
  const auto answer = net_.Backward(header, {AsSource(ones_)});
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->tensors.size(), 0);
  EXPECT_EQ(answer->result.step().stepped_count(), 2);
  EXPECT_THAT(Params(net_), ElementsAre(-1, -1, -1, -1, 1, 1, 1, 1,  //
                                        0, 0, 0, 0, 1, 1, 1, 1));
}

TEST_F(VerbsTest, ForwardRunsWithTheCallersBuffers) {
  const auto buffers = net_.GetBuffers();
  ASSERT_THAT(buffers, IsOk());
  for (float& mean : buffers->tensors.As<float>(0)) mean = 5;

  v1::ForwardHeader header = ForwardOf(2);
  header.set_training(true);
  header.set_return_buffers(true);
  const std::vector<float> input = All(8, 1);
  v1::ForwardHeader with_buffers = header;
  *with_buffers.mutable_buffers() = buffers->result.buffers();
  Sources sources = AsSources(buffers->tensors);
  sources.insert(sources.begin(), AsSource(input));
  const auto given = net_.Forward(with_buffers, sources);
  ASSERT_THAT(given, IsOk());
  EXPECT_EQ(given->result.version().buffers(), 1);

  // The same with the buffers in the instance.
  v1::SetBuffersHeader set;
  *set.mutable_buffers() = buffers->result.buffers();
  ASSERT_THAT(net_.SetBuffers(set, AsSources(buffers->tensors)), IsOk());
  const auto own = net_.Forward(header, {AsSource(input)});
  ASSERT_THAT(own, IsOk());
  ASSERT_EQ(given->tensors.size(), 1 + buffers->tensors.size());
  ASSERT_EQ(own->tensors.size(), given->tensors.size());
  EXPECT_THAT(Values(given->tensors, 1),
              Each(FloatNear(0.9F * 5 + 0.1F * 1, 1e-5F)));
  for (size_t i = 0; i < own->tensors.size(); ++i) {
    EXPECT_TRUE(std::ranges::equal(given->tensors[i], own->tensors[i])) << i;
  }
}

TEST_F(VerbsTest, ForwardAsksTheFeatureCacheByDigest) {
  v1::UpdateInstanceRequest update;
  update.set_instance("fake");
  update.mutable_settings()->set_feature_cache_bytes(1 << 16);
  update.mutable_update_mask()->add_paths("feature_cache_bytes");
  ASSERT_THAT(client_.UpdateInstance(update), IsOk());

  v1::ForwardHeader upload = ForwardOf(1);
  v1::ForwardHeader ask;
  ask.set_input_digest(wire::InputDigest(upload.inputs(), {AsSource(ones_)}));
  const absl::Status miss = net_.Forward(ask, {}).status();
  EXPECT_EQ(miss.code(), StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(miss), v1::ERROR_REASON_CACHE_MISS);
  const auto kept = net_.Forward(upload, {AsSource(ones_)});
  ASSERT_THAT(kept, IsOk());
  EXPECT_EQ(kept->result.cache_use(), v1::CACHE_USE_KEPT);
  const auto hit = net_.Forward(ask, {});
  ASSERT_THAT(hit, IsOk());
  EXPECT_EQ(hit->result.cache_use(), v1::CACHE_USE_HIT);
  EXPECT_THAT(Values(hit->tensors, 0), Each(6));
}

// The loss is half the mean of the squared logits, 6 each, and the negated
// logarithm of one of four equal probabilities.
TEST_F(VerbsTest, TrainStepTakesEveryTermAndGivesTheLogits) {
  Configure(net_, Sgd(1));
  v1::TrainStepHeader header;
  *header.mutable_input() = FloatSpec({2, 4});
  v1::LossTerm& squares = *header.add_terms();
  squares.set_weight(0.5);
  *squares.mutable_mean_squared_error()->mutable_target() = FloatSpec({2, 4});
  v1::TensorSpec& labels =
      *header.add_terms()->mutable_cross_entropy()->mutable_labels();
  labels.set_dtype(v1::DATA_TYPE_INT64);
  labels.add_shape(2);
  header.set_return_logits(true);
  const std::vector<float> input = All(8, 1), zeros = All(8, 0);
  const std::vector<int64_t> classes = {1, 3};
  const Sources batch = {AsSource(input), AsSource(zeros),
                         std::as_bytes(std::span(classes))};
  const auto answer = net_.TrainStep(header, batch);
  ASSERT_THAT(answer, IsOk());
  EXPECT_THAT(answer->result.losses(),
              ElementsAre(36, testing::DoubleNear(1.3862943611198906, 1e-6)));
  EXPECT_EQ(answer->result.step().stepped_count(), 2);
  EXPECT_EQ(answer->result.version().params(), 2);
  EXPECT_THAT(Values(answer->tensors, 0), ElementsAre(6, 6, 6, 6, 6, 6, 6, 6));
  // A logit's gradient is 0.75 and 0.125, less 0.5 where the label is.
  EXPECT_THAT(Params(net_),
              Pointwise(FloatNear(1e-5F), {-3.25, -1.75, -3.25, -1.75,  //
                                           1.0, 1.0, 1.0, 1.0,          //
                                           0.0, 0.0, 0.0, 0.0,          //
                                           -0.5, 0.5, -0.5, 0.5}));
  EXPECT_THAT(net_.TrainStep(header, batch, {std::span<std::byte>()}),
              StatusIs(StatusCode::kInvalidArgument,
                       "the answer has 32 bytes, its destination 0"));
}

TEST_F(VerbsTest, AnOptimizersStateGoesToAnotherInstance) {
  v1::CloneInstanceRequest clone;
  clone.set_instance("fake");
  const auto cloned = client_.CloneInstance(clone);
  ASSERT_THAT(cloned, IsOk());
  const Backbone other = client_.backbone(cloned->instance().name());

  Configure(net_, Sgd(0.5, 0.5));
  const std::vector<float> grads = All(16, 2);
  ASSERT_THAT(net_.SetGrads(AsSource(grads)), IsOk());
  v1::StepRequest step;
  step.mutable_options()->mutable_clip_norm()->set_max_norm(100);
  const auto stepped = net_.Step(step);
  ASSERT_THAT(stepped, IsOk());
  EXPECT_EQ(stepped->result().grad_norm(), 8);

  const auto state = net_.GetOptimizerState();
  ASSERT_THAT(state, IsOk());
  ASSERT_THAT(state->result.tensors(), SizeIs(4));
  EXPECT_EQ(state->result.tensors(3).name(), "head/momentum_buffer");
  EXPECT_THAT(Values(state->tensors, 3), Each(2));
  std::vector<float> place = All(16, 0);
  ASSERT_THAT(
      net_.GetOptimizerState({}, {std::as_writable_bytes(std::span(place))}),
      IsOk());
  EXPECT_EQ(place, All(16, 2));

  v1::SetOptimizerStateHeader header;
  *header.mutable_optimizer() = state->result.optimizer();
  *header.mutable_tensors() = state->result.tensors();
  ASSERT_THAT(other.SetOptimizerState(header, AsSources(state->tensors)),
              IsOk());
  ASSERT_THAT(other.SetParams(AsSource(Params(net_))), IsOk());
  ASSERT_THAT(other.SetGrads(AsSource(grads)), IsOk());
  ASSERT_THAT(other.Step(), IsOk());
  ASSERT_THAT(net_.Step(), IsOk());
  EXPECT_THAT(Params(net_), ElementsAre(-0.5, -0.5, -0.5, -0.5,  //
                                        -1.5, -1.5, -1.5, -1.5,  //
                                        -2.5, -2.5, -2.5, -2.5,  //
                                        0.5, 0.5, 0.5, 0.5));
  EXPECT_EQ(Params(other), Params(net_));
}

TEST_F(VerbsTest, UpdateInstanceChangesItsSettings) {
  v1::UpdateInstanceRequest update;
  update.set_instance("fake");
  update.mutable_settings()->set_read_only(true);
  update.mutable_update_mask()->add_paths("read_only");
  const auto updated = client_.UpdateInstance(update);
  ASSERT_THAT(updated, IsOk());
  EXPECT_TRUE(updated->instance().settings().read_only());
  const absl::Status refused = net_.ZeroGrads().status();
  EXPECT_EQ(ReasonOf(refused), v1::ERROR_REASON_READ_ONLY);
}

TEST_F(VerbsTest, ZeroGradsAndReleaseTapesTakeAway) {
  const std::vector<float> grads = All(16, 2);
  ASSERT_THAT(net_.SetGrads(AsSource(grads)), IsOk());
  v1::ZeroGradsRequest zero;
  zero.mutable_selection()->add_globs("head");
  ASSERT_THAT(net_.ZeroGrads(zero), IsOk());
  v1::GetGradsRequest get;
  get.set_allow_absent(true);
  EXPECT_THAT(net_.GetGrads(get).value().result.grads().present(),
              ElementsAre(true, true, true, false));

  const std::string tape = Tape(1);
  EXPECT_EQ(net_.ReleaseTapes({tape, "none"}).value().released_count(), 1);
  EXPECT_EQ(server_.tape_count(), 0);
}

TEST_F(VerbsTest, ExtractGivesFeatures) {
  v1::ExtractRequest request;
  *request.mutable_input() = FloatSpec({1, 4});
  request.set_data(Bytes(ones_));
  const auto answer = net_.Extract(request);
  ASSERT_THAT(answer, IsOk());
  EXPECT_THAT(Floats(answer->data()), ElementsAre(2, 2, 2, 2));
}

// A change that is sent twice with one id is applied once.
TEST_F(VerbsTest, ARequestIdStandsForOneChange) {
  v1::SetParamsHeader header;
  header.set_request_id("once");
  const std::vector<float> params = All(16, 7);
  ASSERT_THAT(net_.SetParams(AsSource(params), header), IsOk());
  const auto again = net_.SetParams(AsSource(params), header);
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->version().params(), 2);
}

}  // namespace
}  // namespace backboned::client
