#include "backbones/forward.h"

#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/backbones/tensors.h"

namespace backboned {
namespace {

ForwardOptions Recorded(bool training = false) {
  return {.training = training, .record = true};
}

// Returns the graph with ones as the gradients of all outputs.
GraphGradients Ones(const Graph& graph) {
  GraphGradients ones = {.graph = &graph};
  for (const at::Tensor& output : graph.outputs) {
    ones.output_grads.push_back(at::ones_like(output.detach()));
  }
  return ones;
}

// Returns the gradients of the sum of all outputs.
BackwardOutput GradientsOfSum(const Graph& graph, bool retain = false) {
  const GraphGradients ones = Ones(graph);
  return Backward({&ones, 1}, retain, /*want_input_grads=*/true);
}

// Returns each graph's gradient of its images.
std::vector<at::Tensor> InputGrads(const BackwardOutput& output) {
  std::vector<at::Tensor> grads;
  for (const Inputs& inputs : output.input_grads) grads.push_back(inputs.x());
  return grads;
}

TEST(ForwardTest, GivesOutputsInTheOrderAskedFor) {
  const auto resnet = SmallResNet();
  const auto state = Seeded(*resnet);
  const auto all =
      Forward(*resnet, *state, Images(1), {.outputs = resnet->output_names()});
  const auto some = Forward(*resnet, *state, Images(1),
                            {.outputs = {"layers.2", "features", "out"}});
  EXPECT_TRUE(
      BitEqual(some.outputs, {all.outputs[4], all.outputs[1], all.outputs[0]}));
}

TEST(ForwardTest, GivesPlainTensorsWithoutAGraphUnlessRecorded) {
  const auto resnet = SmallResNet();
  const auto state = Seeded(*resnet);
  const auto plain = Forward(*resnet, *state, Images(1), {});
  EXPECT_EQ(plain.graph, nullptr);
  EXPECT_FALSE(plain.outputs[0].requires_grad());
  const auto recorded = Forward(*resnet, *state, {Images(1), true}, Recorded());
  ASSERT_NE(recorded.graph, nullptr);
  EXPECT_FALSE(recorded.outputs[0].requires_grad());
  EXPECT_FALSE(state->params[0].requires_grad());
  EXPECT_TRUE(BitEqual(plain.outputs, recorded.outputs));
}

TEST(BackwardTest, MakesAGraphWhenItsTurnHasCome) {
  const auto resnet = SmallResNet();
  const auto state = Seeded(*resnet);
  const auto first = Forward(*resnet, *state, {Images(1), true}, Recorded());
  const auto second = Forward(*resnet, *state, {Images(2), true}, Recorded());
  const auto third = Forward(*resnet, *state, {Images(3), true}, Recorded());
  std::vector<GraphGradients> requests = {
      Ones(*first.graph), Ones(*second.graph), Ones(*third.graph)};
  const auto expected =
      Backward(requests, /*retain=*/true, /*want_input_grads=*/true);

  std::vector<uint64_t> made;
  for (const size_t i : {0, 2}) {
    const uint64_t sequence = requests[i].graph->sequence;
    requests[i].graph = nullptr;
    requests[i].sequence = sequence;
    requests[i].make = [&, i, sequence] {
      made.push_back(sequence);
      ForwardOptions options = Recorded();
      options.sequence = sequence;
      return Forward(*resnet, *state, {Images(i + 1), true}, options).graph;
    };
  }
  const auto actual =
      Backward(requests, /*retain=*/true, /*want_input_grads=*/true);
  EXPECT_TRUE(BitEqual(actual.grads, expected.grads));
  EXPECT_TRUE(BitEqual(InputGrads(actual), InputGrads(expected)));
  EXPECT_THAT(made,
              testing::ElementsAre(requests[2].sequence, requests[0].sequence));
}

TEST(ForwardTest, LeavesTheStateAsItIs) {
  const auto resnet = SmallResNet();
  const auto state = Seeded(*resnet);
  const auto params = Copies(state->params);
  const auto buffers = Copies(state->buffers);
  const auto result =
      Forward(*resnet, *state, {Images(1), true}, Recorded(/*training=*/true));
  GradientsOfSum(*result.graph);
  EXPECT_TRUE(BitEqual(state->params, params));
  EXPECT_TRUE(BitEqual(state->buffers, buffers));
}

TEST(ForwardTest, MovesTheBuffersInTrainingOnly) {
  const auto resnet = SmallResNet();
  const auto state = Seeded(*resnet);
  const auto eval = Forward(*resnet, *state, Images(1), {});
  EXPECT_EQ(eval.buffers[0].const_data_ptr(),
            state->buffers[0].const_data_ptr());
  const auto train = Forward(*resnet, *state, Images(1), {.training = true});
  EXPECT_FALSE(BitEqual(train.buffers[0], state->buffers[0]));
  EXPECT_EQ(train.buffers[2].item<int64_t>(), 1);
  const auto again = Forward(*resnet, *WithBuffers(*state, train.buffers),
                             Images(1), {.training = true});
  EXPECT_EQ(again.buffers[2].item<int64_t>(), 2);
}

TEST(ForwardTest, RejectsUnknownOutputsAndMasksOfAnotherLength) {
  const auto resnet = SmallResNet();
  const auto state = Seeded(*resnet);
  EXPECT_THROW(Forward(*resnet, *state, Images(1), {.outputs = {"logits"}}),
               c10::Error);
  ForwardOptions options = Recorded();
  options.grad_mask = {true};
  EXPECT_THROW(Forward(*resnet, *state, {Images(1), true}, options),
               c10::Error);
}

// LibTorch's batch_norm writes running statistics in place, which autograd does
// not notice: an evaluation's gradients would silently use the statistics after
// the training.
TEST(BackwardTest, IsExactForAnEvaluationBeforeATraining) {
  const auto resnet = SmallResNet();
  const auto state = Seeded(*resnet);
  const auto expected = GradientsOfSum(
      *Forward(*resnet, *state, {Images(1), true}, Recorded()).graph);

  const auto eval = Forward(*resnet, *state, {Images(1), true}, Recorded());
  Forward(*resnet, *state, {Images(2), true}, Recorded(/*training=*/true));
  const auto actual = GradientsOfSum(*eval.graph);
  EXPECT_TRUE(BitEqual(actual.grads, expected.grads));
  EXPECT_TRUE(BitEqual(InputGrads(actual), InputGrads(expected)));
}

TEST(BackwardTest, IsExactAfterTheStateWasReplaced) {
  const auto resnet = SmallResNet();
  StatePtr state = Seeded(*resnet);
  const auto expected = GradientsOfSum(
      *Forward(*resnet, *state, {Images(1), true}, Recorded(/*training=*/true))
           .graph);

  const auto result =
      Forward(*resnet, *state, {Images(1), true}, Recorded(/*training=*/true));
  const auto slices = SelectParameters({}, resnet->layout()).value();
  const auto fresh = FreshTensors(state->params, slices);
  for (const at::Tensor& tensor : fresh) {
    tensor.fill_(0.5);
  }
  state = WithParams(*state, slices, fresh);
  const auto actual = GradientsOfSum(*result.graph);
  EXPECT_TRUE(BitEqual(actual.grads, expected.grads));
  EXPECT_TRUE(BitEqual(InputGrads(actual), InputGrads(expected)));
}

// Each forward has its own BatchNorm state: the backward of the first stays the
// same after a second training forward on the updated buffers.
TEST(BackwardTest, KeepsSeveralForwardsApart) {
  const auto resnet = SmallResNet();
  const auto state = Seeded(*resnet);
  const auto run = [&](const State& from, uint64_t seed) {
    return Forward(*resnet, from, {Images(seed), true},
                   Recorded(/*training=*/true));
  };
  const auto alone1 = run(*state, 1);
  const auto alone1_grads = GradientsOfSum(*alone1.graph);
  const auto moved = WithBuffers(*state, alone1.buffers);
  const auto alone2_grads = GradientsOfSum(*run(*moved, 2).graph);

  const auto first = run(*state, 1);
  const auto second = run(*moved, 2);
  EXPECT_TRUE(BitEqual(first.buffers, alone1.buffers));
  const std::vector<GraphGradients> graphs = {Ones(*first.graph),
                                              Ones(*second.graph)};
  const auto both = Backward(graphs, false, true);
  EXPECT_TRUE(BitEqual(InputGrads(both), {alone1_grads.input_grads[0].x(),
                                          alone2_grads.input_grads[0].x()}));
  for (size_t i = 0; i < both.grads.size(); ++i) {
    EXPECT_TRUE(BitEqual(both.grads[i],
                         alone2_grads.grads[i].add(alone1_grads.grads[i])));
  }
}

// In float32 (1e8 - 1e8) + 1 is 1, but (1 - 1e8) + 1e8 is 0.
TEST(BackwardTest, SumsTheNewestForwardFirst) {
  const Scale scale;
  const auto state = Seeded(scale);
  const auto run = [&](float x) {
    return Forward(scale, *state, {at::full({1, 2}, x / 2), true}, Recorded())
        .graph;
  };
  const auto oldest = run(1);
  const auto middle = run(-1e8F);
  const auto newest = run(1e8F);
  ASSERT_LT(oldest->sequence, middle->sequence);
  ASSERT_LT(middle->sequence, newest->sequence);
  const std::vector<GraphGradients> graphs = {Ones(*middle), Ones(*oldest),
                                              Ones(*newest)};
  const auto result = Backward(graphs, /*retain=*/true, true);
  EXPECT_EQ(result.grads[0].item<float>(), 1);
  EXPECT_EQ(result.grads[1].item<float>(), 6);
  ASSERT_EQ(result.input_grads.size(), 3);
}

TEST(BackwardTest, GivesEachGraphsGradientsInTheOrderOfTheRequest) {
  const Scale scale;
  const auto state = Seeded(scale);
  const auto run = [&](float x) {
    return Forward(scale, *state, {at::full({1, 2}, x / 2), true}, Recorded())
        .graph;
  };
  const auto older = run(1);
  const auto newer = run(10);
  const std::vector<GraphGradients> graphs = {Ones(*older), Ones(*newer)};
  const auto both = Backward(graphs, /*retain=*/true, false, {.each = true});
  ASSERT_EQ(both.graph_grads.size(), 2);
  EXPECT_EQ(both.graph_grads[0].at(0).item<float>(), 1);
  EXPECT_EQ(both.graph_grads[1].at(0).item<float>(), 10);
  EXPECT_EQ(both.grads[0].item<float>(), 11);
  const auto each =
      Backward(graphs, /*retain=*/true, false, {.sum = false, .each = true});
  EXPECT_TRUE(BitEqual(each.graph_grads[1], both.graph_grads[1]));
  EXPECT_TRUE(each.grads.empty());
}

TEST(BackwardTest, SumsTheSquaresOfEachGraphsGradients) {
  const Scale scale;
  const auto state = Seeded(scale);
  const auto run = [&](float x) {
    return Forward(scale, *state, {at::full({1, 2}, x / 2), true}, Recorded())
        .graph;
  };
  const auto older = run(3);
  const auto newer = run(4);
  const std::vector<GraphGradients> graphs = {Ones(*older), Ones(*newer)};
  const auto result = Backward(graphs, /*retain=*/false, false,
                               {.sum = false, .squares = true});
  EXPECT_EQ(result.squared_grads.at(0).item<float>(), 25);
  EXPECT_TRUE(result.grads.empty());
  EXPECT_TRUE(result.graph_grads.empty());
}

TEST(BackwardTest, SumsByTheSequenceThatTheCallerGives) {
  const Scale scale;
  const auto state = Seeded(scale);
  const auto run = [&](float x, uint64_t sequence) {
    ForwardOptions options = Recorded();
    options.sequence = sequence;
    return Forward(scale, *state, {at::full({1, 2}, x / 2), true}, options)
        .graph;
  };
  const auto a = run(1, 9);
  const auto b = run(-1e8F, 8);
  const auto c = run(1e8F, 7);
  const std::vector<GraphGradients> graphs = {Ones(*a), Ones(*b), Ones(*c)};
  EXPECT_EQ(Backward(graphs, false, false).grads[0].item<float>(), 0);
}

TEST(BackwardTest, GivesNoGradientToFrozenParameters) {
  const auto resnet = SmallResNet();
  const auto state = Seeded(*resnet);
  const auto all = GradientsOfSum(
      *Forward(*resnet, *state, {Images(1), true}, Recorded()).graph);
  ForwardOptions options = Recorded();
  options.grad_mask.resize(state->params.size());
  options.grad_mask[3] = true;
  const auto some = GradientsOfSum(
      *Forward(*resnet, *state, {Images(1), true}, options).graph);
  for (size_t i = 0; i < some.grads.size(); ++i) {
    EXPECT_TRUE(i == 3 ? BitEqual(some.grads[i], all.grads[i])
                       : !some.grads[i].defined())
        << i;
  }
  EXPECT_TRUE(BitEqual(InputGrads(some), InputGrads(all)));
}

TEST(BackwardTest, GivesTheInputGradientAloneIfAllIsFrozen) {
  const Scale scale;
  ForwardOptions options = Recorded();
  options.grad_mask = {false, false};
  const auto result =
      Forward(scale, *Seeded(scale), {at::ones({1, 2}), true}, options);
  const auto grads = GradientsOfSum(*result.graph);
  EXPECT_FALSE(grads.grads[0].defined());
  EXPECT_TRUE(BitEqual(grads.input_grads[0].x(), at::full({1, 2}, 3.0F)));
}

TEST(BackwardTest, GivesNothingIfNothingDependsOnALeaf) {
  const Scale scale;
  ForwardOptions options = Recorded();
  options.grad_mask = {false, false};
  const auto result = Forward(scale, *Seeded(scale), at::ones({1, 2}), options);
  const auto grads = GradientsOfSum(*result.graph);
  EXPECT_FALSE(grads.grads[0].defined());
  EXPECT_TRUE(grads.input_grads[0].all.empty());
}

TEST(BackwardTest, GivesInputGradientsOnlyIfWanted) {
  const Scale scale;
  const auto result =
      Forward(scale, *Seeded(scale), {at::ones({1, 2}), true}, Recorded());
  const GraphGradients ones = Ones(*result.graph);
  const auto grads = Backward({&ones, 1}, false, /*want_input_grads=*/false);
  EXPECT_TRUE(grads.grads[0].defined());
  EXPECT_TRUE(grads.input_grads[0].all.empty());
}

TEST(BackwardTest, GivesInputGradientsByName) {
  const Scale scale;
  Inputs inputs = at::ones({1, 2});
  inputs.all.push_back({.name = "unused", .tensor = at::ones(1), .grad = true});
  inputs.all[0].grad = true;
  const auto result = Forward(scale, *Seeded(scale), inputs, Recorded());
  const auto grads = GradientsOfSum(*result.graph).input_grads[0].all;
  ASSERT_EQ(grads.size(), 2);
  EXPECT_EQ(grads[0].name, "");
  EXPECT_TRUE(BitEqual(grads[0].tensor, at::full({1, 2}, 3.0F)));
  EXPECT_EQ(grads[1].name, "unused");
  EXPECT_FALSE(grads[1].tensor.defined());
}

TEST(BackwardTest, GivesTheClassifierNoneIfOnlyFeaturesWereAskedFor) {
  const auto resnet = SmallResNet();
  ForwardOptions options = Recorded();
  options.outputs = {"features"};
  const auto result =
      Forward(*resnet, *Seeded(*resnet), {Images(1), true}, options);
  const auto grads = GradientsOfSum(*result.graph).grads;
  for (size_t i = 0; i < grads.size(); ++i) {
    EXPECT_EQ(grads[i].defined(), i + 2 < grads.size()) << i;
  }
}

TEST(BackwardTest, CountsAnAbsentOutputGradientAsNone) {
  const auto resnet = SmallResNet();
  ForwardOptions options = Recorded();
  options.outputs = {"out", "layers.1"};
  const auto result =
      Forward(*resnet, *Seeded(*resnet), {Images(1), true}, options);
  GraphGradients request = Ones(*result.graph);
  request.output_grads[0] = at::Tensor();
  const auto grads = Backward({&request, 1}, false, false).grads;
  const auto& parameters = resnet->layout().parameters();
  for (size_t i = 0; i < grads.size(); ++i) {
    const bool reached = parameters[i].name.starts_with("layer1") ||
                         parameters[i].name.starts_with("conv1") ||
                         parameters[i].name.starts_with("bn1");
    EXPECT_EQ(grads[i].defined(), reached) << parameters[i].name;
  }
}

TEST(BackwardTest, MayRunAgainIfRetained) {
  const auto resnet = SmallResNet();
  const auto result =
      Forward(*resnet, *Seeded(*resnet), {Images(1), true}, Recorded());
  const auto once = GradientsOfSum(*result.graph, /*retain=*/true);
  const auto twice = GradientsOfSum(*result.graph);
  EXPECT_TRUE(BitEqual(once.grads, twice.grads));
  EXPECT_THROW(GradientsOfSum(*result.graph), c10::Error);
}

TEST(BackwardTest, RejectsOtherShapesBeforeItBegins) {
  const Scale scale;
  const auto state = Seeded(scale);
  const auto good =
      Forward(scale, *state, {at::ones({1, 2}), true}, Recorded());
  const auto bad = Forward(scale, *state, {at::ones({1, 2}), true}, Recorded());
  std::vector<GraphGradients> graphs = {Ones(*bad.graph), Ones(*good.graph)};
  graphs[0].output_grads[0] = at::ones({2, 2});
  EXPECT_THROW(Backward(graphs, false, false), c10::Error);
  graphs[0].output_grads.clear();
  EXPECT_THROW(Backward(graphs, false, false), c10::Error);
  // Neither graph was used up.
  GradientsOfSum(*good.graph);
  GradientsOfSum(*bad.graph);
}

TEST(BackwardTest, GivesContiguousGradientsThatNeedNone) {
  const auto mlp = Build("mnistmlp", {{"num_classes", 3}});
  const auto result =
      Forward(*mlp, *Seeded(*mlp), {Rand(1, {4, 784}), true}, Recorded());
  for (const at::Tensor& grad : GradientsOfSum(*result.graph).grads) {
    EXPECT_TRUE(grad.is_contiguous());
    EXPECT_FALSE(grad.requires_grad());
  }
}

// Two threads run forwards and backwards of the same State.
TEST(ForwardTest, RunsOnSharedStatesFromSeveralThreads) {
  const auto mlp = Build("mnistmlp", {{"num_classes", 3}});
  const auto state = Seeded(*mlp);
  const at::Tensor x = Rand(1, {4, 784});
  const auto expected = Forward(*mlp, *state, x, {}).outputs;
  std::vector<std::jthread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      for (int run = 0; run < 20; ++run) {
        const auto result = Forward(*mlp, *state, {x, true}, Recorded());
        EXPECT_TRUE(BitEqual(result.outputs, expected));
        WithAddedGrads(*state, GradientsOfSum(*result.graph).grads);
      }
    });
  }
}

TEST(PrepareInputTest, LeavesFloatsAlone) {
  const at::Tensor x = Rand(1, {2, 3, 4, 4});
  const std::vector<double> mean = {1, 2, 3};
  EXPECT_TRUE(PrepareInput(x, mean, mean).is_same(x));
}

TEST(PrepareInputTest, ScalesAndNormalisesBytesAsTorchvisionDoes) {
  const std::vector<double> mean = {0.4914, 0.4822, 0.4465};
  const std::vector<double> std = {0.2470, 0.2435, 0.2615};
  const at::Tensor x = Rand(1, {2, 3, 4, 4}).mul(255).to(at::kByte);
  at::Tensor expected = x.to(at::kFloat).div(255);
  EXPECT_TRUE(BitEqual(PrepareInput(x, {}, {}), expected));
  expected = expected.sub(at::tensor(mean, at::kFloat).view({3, 1, 1}))
                 .div(at::tensor(std, at::kFloat).view({3, 1, 1}));
  EXPECT_TRUE(BitEqual(PrepareInput(x, mean, std), expected));
}

TEST(PrepareInputTest, ConvertsFloatsAndNormalisesBytesBeforeThat) {
  const at::Tensor floats = Rand(1, {2, 3, 4, 4});
  EXPECT_TRUE(BitEqual(PrepareInput(floats, {}, {}, at::kBFloat16),
                       floats.to(at::kBFloat16)));
  const std::vector<double> mean = {0.4914, 0.4822, 0.4465};
  const at::Tensor bytes = floats.mul(255).to(at::kByte);
  EXPECT_TRUE(BitEqual(PrepareInput(bytes, mean, mean, at::kDouble),
                       PrepareInput(bytes, mean, mean).to(at::kDouble)));
}

TEST(PrepareInputTest, RejectsOtherDtypesAndNumbersOfChannels) {
  const std::vector<double> mean = {0.5};
  EXPECT_THROW(PrepareInput(at::ones({1, 3, 2, 2}, at::kLong), {}, {}),
               c10::Error);
  EXPECT_THROW(PrepareInput(at::ones({1, 3, 2, 2}, at::kByte), mean, mean),
               c10::Error);
}

TEST(ForwardTest, CountsProductsOfForwardAndBackward) {
  const auto mlp = Build("mnistmlp", {{"num_classes", int64_t{10}},
                                      {"mlp_hidden_size", int64_t{100}}});
  const auto state = Seeded(*mlp);
  const at::Tensor x = at::ones({3, 784});
  const int64_t first = int64_t{2} * 3 * 784 * 100;
  const int64_t second = int64_t{2} * 3 * 100 * 100;
  const int64_t head = int64_t{2} * 3 * 100 * 10;
  const auto flops = [&](const ForwardOptions& options, bool grad = false) {
    return Forward(*mlp, *state, {x, grad}, options).flops;
  };
  EXPECT_EQ(flops({}), (Flops{first + second + head, 0}));
  EXPECT_EQ(flops({.outputs = {"features"}}), (Flops{first + second, 0}));
  // The first product needs no gradient of the images.
  EXPECT_EQ(flops(Recorded()),
            (Flops{first + second + head, first + 2 * (second + head)}));
  EXPECT_EQ(flops(Recorded(), /*grad=*/true),
            (Flops{first + second + head, 2 * (first + second + head)}));
  ForwardOptions head_alone = Recorded();
  head_alone.grad_mask = {false, false, false, false, true, true};
  EXPECT_EQ(flops(head_alone), (Flops{first + second + head, head}));
}

TEST(ForwardTest, ABackwardCountsItsGraphsAndTheForwardsThatMakeThem) {
  const auto resnet = SmallResNet();
  const auto state = Seeded(*resnet);
  const auto made = [&] {
    return Forward(*resnet, *state, Images(1), Recorded(true)).graph;
  };
  const auto graph = made();
  const Flops flops = graph->flops;
  EXPECT_GT(flops.forward, 0);
  EXPECT_GT(flops.backward, flops.forward);
  std::vector<GraphGradients> both = {Ones(*graph), Ones(*graph)};
  both[1].graph = nullptr;
  both[1].make = made;
  EXPECT_EQ(Backward(both, /*retain=*/false, /*want_input_grads=*/false).flops,
            2 * flops.backward + flops.forward);
}

}  // namespace
}  // namespace backboned
