#include "client/cpp/backbone.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "client/cpp/client.h"
#include "client/cpp/error.h"
#include "tests/client/cpp/fake_server.h"
#include "tests/testing/status_matchers.h"

namespace backboned::client {
namespace {

using ::absl::StatusCode;
using ::testing::HasSubstr;

std::string Text(size_t count) {
  std::string text(count, '\0');
  for (size_t i = 0; i < count; ++i)
    text[i] = static_cast<char>(i * 7 + i / 99);
  return text;
}

Source AsSource(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::span<std::byte> AsDestination(std::string& text) {
  return std::as_writable_bytes(std::span(text));
}

std::string AsText(std::span<const std::byte> bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

v1::ForwardHeader ForwardOf(const std::string& input) {
  v1::ForwardHeader header;
  *header.add_inputs() = ByteSpec(input);
  return header;
}

class BackboneTest : public testing::Test {
 protected:
  Backbone Net(Options options = {}) {
    return Client::Connect(server_.target(), options).value().backbone("net");
  }

  absl::Notification client_returned_;
  FakeServer server_;
};

TEST_F(BackboneTest, ForwardBringsOutputsAndBuffers) {
  server_.backbones.buffers = "buffers";
  const std::string input = Text(3'000'000);
  v1::ForwardHeader header = ForwardOf(input);
  header.add_outputs("out");
  const auto answer = Net().Forward(header, {AsSource(input)});
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->result.tape_id(), "tape");
  ASSERT_EQ(answer->tensors.size(), 2);
  EXPECT_TRUE(AsText(answer->tensors[0]) == PlusOne(input));
  EXPECT_EQ(AsText(answer->tensors[1]), "buffers");
  EXPECT_EQ(server_.backbones.forward_header.instance(), "net");
  EXPECT_EQ(server_.backbones.forward_header.outputs(0), "out");
}

TEST_F(BackboneTest, ForwardFillsTheCallersMemory) {
  server_.backbones.buffers = "buffers";
  std::string output(5, '.'), buffers(7, '.');
  const auto result =
      Net().Forward(ForwardOf("input"), {AsSource("input")},
                    {AsDestination(output), AsDestination(buffers)});
  ASSERT_THAT(result, IsOk());
  EXPECT_EQ(output, PlusOne("input"));
  EXPECT_EQ(buffers, "buffers");
}

TEST_F(BackboneTest, ForwardTakesAnEmptyBatch) {
  const auto answer = Net().Forward({}, {Source()});
  ASSERT_THAT(answer, IsOk());
  ASSERT_EQ(answer->tensors.size(), 2);
  EXPECT_TRUE(answer->tensors[0].empty());
}

TEST_F(BackboneTest, BackwardBringsGradients) {
  server_.backbones.grads = "grads";
  v1::BackwardHeader header;
  header.set_return_grads(true);
  const std::vector<std::string> sent = {"first", "second"};
  v1::TapeGradients& tape = *header.add_tapes();
  for (const std::string& bytes : sent) {
    *tape.add_gradients() = ByteSpec(bytes);
  }
  const std::vector<Source> sources = {AsSource(sent[0]), AsSource(sent[1])};
  const auto answer = Net().Backward(header, sources);
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(AsText(answer->tensors[0]), "grads");
  EXPECT_EQ(AsText(answer->tensors[1]), PlusOne("firstsecond"));
  EXPECT_TRUE(server_.backbones.backward_header.return_grads());

  std::string all(16, '.');
  EXPECT_THAT(Net().Backward(header, sources, {AsDestination(all)}), IsOk());
  EXPECT_EQ(all, "grads" + PlusOne("firstsecond"));
}

TEST_F(BackboneTest, ParamsTravelBothWays) {
  const std::string params = Text(1'500'004);
  const Backbone net = Net();
  const auto set = net.SetParams(AsSource(params));
  ASSERT_THAT(set, IsOk());
  EXPECT_EQ(set->version().params(), 2);
  EXPECT_TRUE(server_.backbones.params == params);
  const v1::TensorSpec& spec = server_.backbones.set_params_header.spec();
  EXPECT_EQ(spec.dtype(), v1::DATA_TYPE_FLOAT32);
  EXPECT_EQ(spec.shape(0), 375'001);

  std::string place(params.size(), '.');
  const auto got = net.GetParams({}, AsDestination(place));
  ASSERT_THAT(got, IsOk());
  EXPECT_EQ(got->version().uid(), "net");
  EXPECT_TRUE(place == params);
  const auto owned = net.GetParams();
  ASSERT_THAT(owned, IsOk());
  EXPECT_TRUE(AsText(owned->tensors[0]) == params);
}

TEST_F(BackboneTest, GradsTravelBothWays) {
  const Backbone net = Net();
  ASSERT_THAT(net.SetGrads(AsSource("gradient")), IsOk());
  const auto grads = net.GetGrads();
  ASSERT_THAT(grads, IsOk());
  EXPECT_EQ(AsText(grads->tensors[0]), "gradient");
  std::string place(8, '.');
  EXPECT_THAT(net.GetGrads({}, AsDestination(place)), IsOk());
  EXPECT_EQ(place, "gradient");
  EXPECT_THAT(net.ZeroGrads(), IsOk());
  EXPECT_EQ(server_.backbones.grads, "");
}

TEST_F(BackboneTest, BuffersTravelBothWays) {
  const Backbone net = Net();
  const std::string mean = "m", var = "v";
  v1::SetBuffersHeader header;
  for (const std::string& bytes : {mean, var}) {
    *header.add_buffers() = ByteSpec(bytes);
  }
  ASSERT_THAT(net.SetBuffers(header, {AsSource(mean), AsSource(var)}), IsOk());
  const auto buffers = net.GetBuffers();
  ASSERT_THAT(buffers, IsOk());
  ASSERT_EQ(buffers->tensors.size(), 2);
  EXPECT_EQ(AsText(buffers->tensors[1]), "v");
  std::string place(2, '.');
  EXPECT_THAT(net.GetBuffers({}, {AsDestination(place)}), IsOk());
  EXPECT_EQ(place, "mv");
}

TEST_F(BackboneTest, AsksWhatNeedsNoStream) {
  const Backbone net = Net();
  EXPECT_EQ(net.ReleaseTapes({"a", "b"})->released_count(), 2);
  v1::ExtractRequest request;
  request.set_data("images");
  EXPECT_EQ(net.Extract(request)->data(), PlusOne("images"));
}

TEST_F(BackboneTest, RefusesAnAnswerThatDoesNotFit) {
  server_.backbones.params = Text(32);
  std::string place(16, '.');
  EXPECT_THAT(Net().GetParams({}, AsDestination(place)),
              StatusIs(StatusCode::kInvalidArgument,
                       "the answer has 32 bytes, its destination 16"));
  EXPECT_EQ(place, std::string(16, '.'));
}

TEST_F(BackboneTest, RefusesAnAnswerOverTheLimit) {
  server_.backbones.params = Text(2000);
  Options options;
  options.max_answer_bytes = 1999;
  EXPECT_THAT(Net(options).GetParams(),
              StatusIs(StatusCode::kResourceExhausted, HasSubstr("1999")));
}

TEST_F(BackboneTest, NoticesATruncatedAnswer) {
  server_.backbones.params = Text(2500);
  server_.backbones.damage = [](v1::CallsResponse& part) {
    if (part.chunk().offset() == 2000) part.clear_chunk();
  };
  EXPECT_THAT(Net().GetParams(),
              StatusIs(StatusCode::kInternal,
                       "the answer is malformed: stream ended at byte 2000, "
                       "expected 2500 bytes"));
}

TEST_F(BackboneTest, NoticesAMisplacedChunk) {
  server_.backbones.params = Text(2500);
  server_.backbones.damage = [](v1::CallsResponse& part) {
    part.mutable_chunk()->set_offset(7);
  };
  EXPECT_THAT(Net().GetParams(),
              StatusIs(StatusCode::kInternal,
                       "the answer is malformed: chunk starts at byte 7, "
                       "expected byte 0"));
}

TEST_F(BackboneTest, NoticesASecondHeader) {
  server_.backbones.params = Text(2500);
  server_.backbones.damage = [](v1::CallsResponse& part) {
    part.mutable_get_params();
  };
  EXPECT_THAT(Net().GetParams(),
              StatusIs(StatusCode::kInternal, "the answer has two results"));
}

TEST_F(BackboneTest, GivesTheErrorOfAServerThatEndsEarly) {
  v1::ErrorDetail detail;
  detail.set_reason(v1::ERROR_REASON_LIMIT_REACHED);
  detail.set_limit("max-in-flight-bytes");
  detail.set_limit_value(10);
  detail.mutable_retry_delay()->set_seconds(3);
  server_.backbones.hook = [&](grpc::ServerContext&) {
    return ErrorOf(grpc::StatusCode::RESOURCE_EXHAUSTED, "too much", detail);
  };
  Options options;
  options.retry_timeout = absl::ZeroDuration();
  const Backbone net = Net(options);
  for (int i = 0; i < 10; ++i) {
    // Freed when the call has returned: the call must not use it later.
    const auto params = std::make_unique<std::string>(40 << 20, 'x');
    const absl::Status status = net.SetParams(AsSource(*params)).status();
    ASSERT_THAT(status, StatusIs(StatusCode::kResourceExhausted, "too much"));
    EXPECT_EQ(ReasonOf(status), v1::ERROR_REASON_LIMIT_REACHED);
    EXPECT_EQ(DetailOf(status)->limit(), "max-in-flight-bytes");
    EXPECT_EQ(DetailOf(status)->limit_value(), 10);
    EXPECT_EQ(RetryDelayOf(status), absl::Seconds(3));
  }
}

TEST_F(BackboneTest, EndsAtTheDeadline) {
  server_.backbones.hook = [this](grpc::ServerContext&) {
    client_returned_.WaitForNotification();
    return grpc::Status::OK;
  };
  Options options;
  options.call_timeout = absl::Milliseconds(100);
  const std::string input = Text(20 << 20);  // More than the connection holds.
  const auto answer = Net(options).Forward(ForwardOf(input), {AsSource(input)});
  client_returned_.Notify();
  EXPECT_THAT(answer, StatusIs(StatusCode::kDeadlineExceeded));
}

}  // namespace
}  // namespace backboned::client
