// Tests clones and settings by the contract, through generated stubs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/server/rpc/plain_client.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class CloneMethodsTest : public ::testing::Test {
 protected:
  static v1::CloneInstanceRequest CloneOf(const std::string& name) {
    v1::CloneInstanceRequest request;
    request.set_instance("fake");
    request.set_name(name);
    return request;
  }

  static v1::UpdateInstanceRequest Update(const std::string& path) {
    v1::UpdateInstanceRequest request;
    request.set_instance("fake");
    request.mutable_update_mask()->add_paths(path);
    return request;
  }

  void SetReadOnly(bool read_only) {
    v1::UpdateInstanceRequest request = Update("read_only");
    request.mutable_settings()->set_read_only(read_only);
    EXPECT_THAT(client_.UpdateInstance(request), IsOk());
  }

  v1::Instance Get(const std::string& name) {
    v1::GetInstanceRequest request;
    request.set_instance(name);
    return client_.GetInstance(request).value().instance();
  }

  static auto ReadOnly() {
    return FailsWith(absl::StatusCode::kFailedPrecondition,
                     v1::ERROR_REASON_READ_ONLY,
                     HasSubstr("instance \"fake\" is read-only"));
  }

  TestServer server_;
  PlainClient client_{server_};
};

TEST_F(CloneMethodsTest, ACloneIsDescribedWithItsLayoutAndShares) {
  const auto clone = client_.CloneInstance(CloneOf("twin"));
  ASSERT_THAT(clone, IsOk());
  EXPECT_EQ(clone->instance().name(), "twin");
  EXPECT_EQ(clone->instance().owner(), "local");
  EXPECT_EQ(clone->instance().version().params(), 1U);
  EXPECT_NE(clone->instance().version().uid(), Get("fake").version().uid());
  EXPECT_EQ(clone->instance().layout().parameter_elements(), kElements);
  EXPECT_GT(clone->instance().memory_bytes(), 0);
  EXPECT_EQ(clone->instance().shared_bytes(), clone->instance().memory_bytes());
  const auto list = client_.ListInstances();
  ASSERT_THAT(list->instances(), SizeIs(2));
  EXPECT_EQ(list->instances(0).shared_bytes(),
            list->instances(0).memory_bytes());

  v1::SetParamsHeader header = SetParamsOf(kElements);
  header.set_instance("twin");
  ASSERT_THAT(client_.SetParams(header, Ones(kElements)), IsOk());
  EXPECT_LT(Get("twin").shared_bytes(), Get("twin").memory_bytes());
  EXPECT_EQ(Floats(client_.GetParams()->bytes)[0], 2);
}

TEST_F(CloneMethodsTest, ARetriedCloneIsMadeOnce) {
  v1::CloneInstanceRequest request = CloneOf("");
  request.set_request_id("once");
  const auto first = client_.CloneInstance(request);
  const auto again = client_.CloneInstance(request);
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(first->instance().version().uid(),
            again->instance().version().uid());
  EXPECT_THAT(client_.ListInstances()->instances(), SizeIs(2));
}

TEST_F(CloneMethodsTest, RefusesATakenNameAndAStaleVersion) {
  EXPECT_THAT(
      client_.CloneInstance(CloneOf("fake")),
      FailsWith(absl::StatusCode::kAlreadyExists,
                v1::ERROR_REASON_INSTANCE_EXISTS, HasSubstr("\"fake\"")));
  v1::CloneInstanceRequest request = CloneOf("twin");
  request.mutable_if_version()->set_params(2);
  EXPECT_THAT(
      client_.CloneInstance(request),
      FailsWith(absl::StatusCode::kAborted, v1::ERROR_REASON_STALE_VERSION,
                HasSubstr("has params 2, the")));
}

TEST_F(CloneMethodsTest, RefusesOptionsThatContradictEachOther) {
  const auto invalid = [](const std::string& message) {
    return FailsWith(absl::StatusCode::kInvalidArgument,
                     v1::ERROR_REASON_INVALID_OPTION, HasSubstr(message));
  };
  v1::CloneInstanceRequest request = CloneOf("twin");
  request.set_seed(1);
  EXPECT_THAT(client_.CloneInstance(request),
              invalid("seed needs num_classes"));
  request.set_num_classes(7);
  request.set_with_grads(true);
  EXPECT_THAT(client_.CloneInstance(request),
              invalid("with_grads or with_optimizer"));
  request.set_with_grads(false);
  request.set_with_optimizer(true);
  EXPECT_THAT(client_.CloneInstance(request),
              invalid("with_grads or with_optimizer"));
  EXPECT_THAT(client_.ListInstances()->instances(), SizeIs(1));
}

TEST_F(CloneMethodsTest, NobodyWritesAReadOnlyInstance) {
  SetReadOnly(true);
  EXPECT_TRUE(Get("fake").settings().read_only());
  EXPECT_THAT(client_.SetParams(SetParamsOf(kElements), Ones(kElements)),
              ReadOnly());
  v1::SetGradsHeader grads;
  grads.set_instance("fake");
  *grads.mutable_grads()->mutable_spec() = FloatSpec({kElements});
  EXPECT_THAT(client_.SetGrads(grads, Ones(kElements)), ReadOnly());
  EXPECT_THAT(client_.ZeroGrads(), ReadOnly());
  v1::ForwardHeader training = ForwardOf(2);
  training.set_training(true);
  EXPECT_THAT(client_.Forward(training, Ones(8)), ReadOnly());
  const auto taped = client_.Forward(TapedForwardOf(1), Ones(4));
  ASSERT_THAT(taped, IsOk());
  v1::BackwardHeader backward = BackwardOf(taped->header.tape_id(), 1);
  backward.set_accumulate(true);
  EXPECT_THAT(client_.Backward(backward, Ones(4)), ReadOnly());
  backward.set_accumulate(false);
  EXPECT_THAT(client_.Backward(backward, Ones(4)), IsOk());
  EXPECT_EQ(Get("fake").version().params(), 1U);
  EXPECT_EQ(Get("fake").version().buffers(), 1U);

  SetReadOnly(false);
  EXPECT_THAT(client_.SetParams(SetParamsOf(kElements), Ones(kElements)),
              IsOk());
}

TEST_F(CloneMethodsTest, AReadOnlyInstanceTrainsWithBuffersThatAreSent) {
  SetReadOnly(true);
  v1::ForwardHeader training = ForwardOf(2);
  training.set_training(true);
  training.set_return_buffers(true);
  const auto present = client_.GetBuffers();
  *training.mutable_buffers() = present->header.buffers();
  const auto answer = client_.Forward(training, Ones(8) + present->bytes);
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->header.version().buffers(), 1U);
  EXPECT_NE(answer->bytes.substr(8 * sizeof(float)), present->bytes);
  EXPECT_EQ(client_.GetBuffers()->bytes, present->bytes);
}

TEST_F(CloneMethodsTest, FrozenParametersGetNoGradientUnlessAForwardAsks) {
  v1::UpdateInstanceRequest request = Update("frozen");
  request.mutable_settings()->add_frozen("sca*");
  const auto updated = client_.UpdateInstance(request);
  ASSERT_THAT(updated, IsOk());
  EXPECT_THAT(updated->instance().settings().frozen(), ElementsAre("sca*"));
  const auto present_of = [this](const v1::ForwardHeader& header) {
    const auto taped = client_.Forward(header, Ones(4));
    v1::BackwardHeader backward = BackwardOf(taped->header.tape_id(), 1);
    backward.set_return_grads(true);
    const auto answer = client_.Backward(backward, Ones(4));
    return std::vector<bool>(answer->header.grads().present().begin(),
                             answer->header.grads().present().end());
  };
  v1::ForwardHeader header = TapedForwardOf(1);
  EXPECT_THAT(present_of(header), ElementsAre(false, false, false, true));
  header.mutable_grad_params()->add_globs("*");
  EXPECT_THAT(present_of(header), ElementsAre(true, false, false, true));
}

TEST_F(CloneMethodsTest, OnlyTheSettingsOfTheMaskChange) {
  SetReadOnly(true);
  v1::UpdateInstanceRequest request = Update("frozen");
  request.mutable_settings()->add_frozen("head");
  EXPECT_THAT(client_.UpdateInstance(request), IsOk());
  const v1::InstanceSettings settings = Get("fake").settings();
  EXPECT_TRUE(settings.read_only());
  EXPECT_THAT(settings.frozen(), ElementsAre("head"));
}

TEST_F(CloneMethodsTest, RefusesUpdatesThatMakeNoSense) {
  const auto invalid = [](const std::string& message) {
    return FailsWith(absl::StatusCode::kInvalidArgument,
                     v1::ERROR_REASON_INVALID_OPTION, HasSubstr(message));
  };
  v1::UpdateInstanceRequest request;
  request.set_instance("fake");
  EXPECT_THAT(client_.UpdateInstance(request),
              invalid("update_mask names no setting"));
  EXPECT_THAT(client_.UpdateInstance(Update("name")),
              invalid("update_mask names \"name\""));
  request = Update("frozen");
  request.mutable_settings()->add_frozen("tail");
  EXPECT_THAT(client_.UpdateInstance(request), invalid("\"tail\""));
  request = Update("frozen");
  for (int i = 0; i < 4097; ++i) request.mutable_settings()->add_frozen("*");
  EXPECT_THAT(client_.UpdateInstance(request),
              invalid("4097 patterns are given, at most 4096"));
  request = Update("frozen");
  for (int i = 0; i < 4000; ++i)
    request.mutable_settings()->add_frozen("scale****");
  EXPECT_THAT(client_.UpdateInstance(request),
              invalid("frozen has 36000 bytes, at most 32768"));
  request = Update("read_only");
  request.mutable_if_version()->set_buffers(9);
  request.mutable_settings()->set_read_only(true);
  EXPECT_THAT(
      client_.UpdateInstance(request),
      FailsWith(absl::StatusCode::kAborted, v1::ERROR_REASON_STALE_VERSION,
                HasSubstr("has buffers 9, the")));
  EXPECT_FALSE(Get("fake").settings().read_only());
}

TEST_F(CloneMethodsTest, CreationTakesSettings) {
  v1::CreateInstanceRequest request;
  request.set_name("mlp");
  request.set_architecture("mnistmlp");
  (*request.mutable_arguments())["num_classes"].set_int_value(3);
  request.mutable_settings()->set_read_only(true);
  request.mutable_settings()->add_frozen("fc1.*");
  const auto created = client_.CreateInstance(request);
  ASSERT_THAT(created, IsOk());
  EXPECT_TRUE(created->instance().settings().read_only());
  EXPECT_THAT(created->instance().settings().frozen(), ElementsAre("fc1.*"));
  request.set_name("other");
  request.mutable_settings()->set_frozen(0, "conv*");
  EXPECT_THAT(client_.CreateInstance(request),
              FailsWith(absl::StatusCode::kInvalidArgument,
                        v1::ERROR_REASON_INVALID_OPTION,
                        HasSubstr("\"conv*\" matches none")));
  EXPECT_THAT(client_.ListInstances()->instances(), SizeIs(2));
}

}  // namespace
}  // namespace backboned
