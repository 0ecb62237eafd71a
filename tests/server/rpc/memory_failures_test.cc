// Makes calls run out of memory at all of their allocations.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "server/memory/memory_allocator.h"
#include "server/memory/memory_room.h"
#include "tests/server/rpc/plain_client.h"

namespace backboned {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();
constexpr int64_t kRows = 2;

// Less than most tensors, so that a limit that grows by it stops a call at most
// of its allocations.
constexpr int64_t kLimitStep = 2048;

class MemoryFailuresTest : public ::testing::Test {
 protected:
  MemoryFailuresTest() {
    Make("net");
    Make("twin");
  }
  ~MemoryFailuresTest() override { CpuMemory().SetLimit(kUnlimited); }

  // Makes a ResNet18 of few channels, with BatchNorm, and an optimizer with
  // momentum.
  void Make(const std::string& name) {
    v1::CreateInstanceRequest request;
    request.set_name(name);
    request.set_architecture("resnet18");
    (*request.mutable_arguments())["num_classes"].set_int_value(3);
    (*request.mutable_arguments())["num_filters"].set_int_value(2);
    request.set_seed(0);
    ASSERT_THAT(client_.CreateInstance(request), IsOk());
    v1::ConfigureOptimizerRequest optimizer;
    optimizer.set_instance(name);
    optimizer.mutable_optimizer()->set_kind(v1::OPTIMIZER_KIND_SGD);
    v1::ParameterGroup& group = *optimizer.mutable_optimizer()->add_groups();
    group.set_lr(0.1);
    group.set_momentum(0.9);
    ASSERT_THAT(client_.ConfigureOptimizer(optimizer), IsOk());
  }

  // Returns all of an instance that a call may change.
  std::string StateOf(const std::string& name) {
    v1::GetInstanceRequest request;
    request.set_instance(name);
    request.set_digest(true);
    const v1::Instance instance =
        client_.GetInstance(request).value().instance();
    v1::GetOptimizerStateRequest optimizer;
    optimizer.set_instance(name);
    v1::GetGradsRequest grads;
    grads.set_instance(name);
    grads.set_allow_absent(true);
    return instance.digest() + client_.GetOptimizerState(optimizer)->bytes +
           client_.GetGrads(grads)->bytes;
  }

  // A call on the instance of a name.
  using Call = std::function<absl::Status(const std::string&)>;

  // Runs `call` on `net` under limits that grow until it succeeds, each time
  // after `prepare` without a limit. Each failure must be RESOURCE_EXHAUSTED
  // and leave the instance as it was; in the end it must be as `twin`, on which
  // `call` never failed.
  void ExpectAllOrNothing(
      const Call& call, const std::function<void(const std::string&)>& prepare =
                            [](const auto&) {}) {
    // Once without a limit, so that LibTorch's one-time allocations are made.
    for (const char* name : {"twin", "net", "twin"}) {
      prepare(name);
      ASSERT_THAT(call(name), IsOk());
    }
    const std::string before = StateOf("net");
    int failures = 0;
    for (int64_t spare = 0;; spare += kLimitStep) {
      prepare("net");
      CpuMemory().SetLimit(CpuMemory().allocated_bytes() + spare);
      const absl::Status status = call("net");
      CpuMemory().SetLimit(kUnlimited);
      if (status.ok()) break;
      ASSERT_TRUE(absl::IsResourceExhausted(status)) << status;
      ASSERT_EQ(StateOf("net"), before) << "after failure " << failures;
      ASSERT_EQ(server_.in_flight_bytes(), 0);
      ++failures;
    }
    EXPECT_GT(failures, 10);
    EXPECT_EQ(StateOf("net"), StateOf("twin"));
  }

  const std::vector<int64_t> shape_ = {kRows, 3, 16, 16};
  const std::string images_ =
      Bytes(std::vector<float>(static_cast<size_t>(kRows) * 3 * 16 * 16, 0.5F));
  TestServer server_;
  PlainClient client_{server_};
};

// R10
TEST_F(MemoryFailuresTest, ATrainStepIsAllOrNothing) {
  v1::TrainStepHeader header;
  *header.mutable_input() = FloatSpec(shape_);
  *header.add_terms()->mutable_mean_squared_error()->mutable_target() =
      FloatSpec({kRows, 3});
  const std::string targets = Bytes(std::vector<float>(kRows * 3, 1));
  ExpectAllOrNothing([&](const std::string& name) {
    header.set_instance(name);
    return client_.TrainStep(header, images_ + targets).status();
  });
}

// R10
TEST_F(MemoryFailuresTest, ATrainingForwardIsAllOrNothing) {
  v1::ForwardHeader header;
  *header.add_inputs() = FloatSpec(shape_);
  header.set_training(true);
  ExpectAllOrNothing([&](const std::string& name) {
    header.set_instance(name);
    return client_.Forward(header, images_).status();
  });
}

// R10
TEST_F(MemoryFailuresTest, ABackwardWithItsStepIsAllOrNothing) {
  v1::ForwardHeader header;
  *header.add_inputs() = FloatSpec(shape_);
  header.set_tape(true);
  const std::string gradient = Bytes(std::vector<float>(kRows * 3, 1));
  std::string tape;
  const auto prepare = [&](const std::string& name) {
    v1::ReleaseTapesRequest release;  // A failure before its start left it.
    release.add_tape_ids(tape);
    ASSERT_THAT(client_.ReleaseTapes(release), IsOk());
    header.set_instance(name);
    tape = client_.Forward(header, images_)->header.tape_id();
  };
  ExpectAllOrNothing(
      [&](const std::string& name) {
        v1::BackwardHeader backward;
        backward.set_instance(name);
        v1::TapeGradients& gradients = *backward.add_tapes();
        gradients.set_tape_id(tape);
        *gradients.add_gradients() = FloatSpec({kRows, 3}, "out");
        backward.set_accumulate(true);
        backward.mutable_step()->set_zero_after(true);
        return client_.Backward(backward, gradient).status();
      },
      prepare);
  EXPECT_EQ(server_.tape_count(), 0);
}

// R10
TEST_F(MemoryFailuresTest, AWriteIsAllOrNothing) {
  v1::GetParamsRequest all;
  all.set_instance("net");
  const std::string params = client_.GetParams(all)->bytes;
  const std::string ones = Bytes(std::vector<float>(params.size() / 4, 1));
  ExpectAllOrNothing([&](const std::string& name) {
    v1::SetParamsHeader header =
        SetParamsOf(static_cast<int64_t>(params.size() / 4));
    header.set_instance(name);
    return client_.SetParams(header, ones).status();
  });
}

}  // namespace
}  // namespace backboned
