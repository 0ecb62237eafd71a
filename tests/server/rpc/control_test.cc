// Tests the control side by the contract, through generated stubs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/server/rpc/plain_client.h"

namespace backboned {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

class ControlTest : public ::testing::Test {
 protected:
  static v1::CreateInstanceRequest Mlp(const std::string& name) {
    v1::CreateInstanceRequest request;
    request.set_name(name);
    request.set_architecture("mnistmlp");
    (*request.mutable_arguments())["num_classes"].set_int_value(3);
    (*request.mutable_arguments())["mlp_hidden_size"].set_int_value(4);
    request.set_seed(0);
    return request;
  }

  std::vector<std::string> Names() {
    std::vector<std::string> names;
    const auto list = client_.ListInstances();
    for (const auto& instance : list->instances()) {
      names.push_back(instance.owner() + "/" + instance.name());
    }
    return names;
  }

  TestServer server_;
  PlainClient client_{server_};
};

TEST_F(ControlTest, SaysWhatTheServerIs) {
  const auto server = client_.GetServer();
  ASSERT_THAT(server, IsOk());
  EXPECT_THAT(server->version(), Not(IsEmpty()));
  EXPECT_THAT(server->torch_version(), StartsWith("2."));
  ASSERT_THAT(server->devices(), SizeIs(1));
  EXPECT_EQ(server->devices(0).name(), "cpu");
  EXPECT_EQ(server->devices(0).threads(), 1);
  EXPECT_TRUE(server->devices(0).default_());
  EXPECT_EQ(server->principal(), "local");
  EXPECT_EQ(server->limits().max_tapes(), 1024);
  EXPECT_EQ(server->limits().max_message_bytes(), 4 << 20);
  EXPECT_EQ(server->limits().max_chunk_bytes(), 2 << 20);
  EXPECT_EQ(server->limits().stall_timeout().seconds(), 60);
  EXPECT_EQ(server->server_uid(), client_.GetServer()->server_uid());
}

TEST_F(ControlTest, ListsArchitecturesAndBenchmarks) {
  std::set<std::string> architectures;
  const auto listed = client_.ListArchitectures();
  ASSERT_THAT(listed, IsOk());
  for (const auto& architecture : listed->architectures()) {
    architectures.insert(architecture.name());
    EXPECT_THAT(architecture.arguments(), Not(IsEmpty()));
  }
  EXPECT_THAT(architectures, IsSupersetOf({"mnistmlp", "resnet18"}));
  std::set<std::string> benchmarks;
  const auto catalogue = client_.ListBenchmarks();
  ASSERT_THAT(catalogue, IsOk());
  for (const auto& benchmark : catalogue->benchmarks()) {
    benchmarks.insert(benchmark.name());
    EXPECT_THAT(benchmark.input_shape(), SizeIs(3));
    EXPECT_TRUE(architectures.contains(benchmark.architecture()));
  }
  EXPECT_THAT(benchmarks,
              IsSupersetOf({"seq-mnist", "perm-mnist", "rot-mnist",
                            "seq-cifar10", "seq-cifar100", "seq-tinyimg"}));
}

TEST_F(ControlTest, ListsByPages) {
  v1::ListBenchmarksRequest request;
  request.set_page_size(2);
  std::vector<std::string> names;
  do {
    const auto page = client_.ListBenchmarks(request);
    ASSERT_THAT(page, IsOk());
    EXPECT_LE(page->benchmarks_size(), 2);
    for (const auto& benchmark : page->benchmarks()) {
      names.push_back(benchmark.name());
    }
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  std::vector<std::string> all;
  const auto catalogue = client_.ListBenchmarks();
  ASSERT_THAT(catalogue, IsOk());
  for (const auto& benchmark : catalogue->benchmarks()) {
    all.push_back(benchmark.name());
  }
  EXPECT_EQ(names, all);
}

TEST_F(ControlTest, ListsInstancesOfOwnersByPages) {
  for (const char* owner : {"local-2", "local.b", "alice"}) {
    server_.AddFake("fake", owner);
  }
  v1::ListInstancesRequest request;
  request.set_page_size(1);
  std::vector<std::string> owners;
  do {
    const auto page = client_.ListInstances(request);
    ASSERT_THAT(page, IsOk());
    ASSERT_THAT(page->instances(), SizeIs(1));
    owners.push_back(page->instances(0).owner());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty() && owners.size() < 9);
  EXPECT_THAT(owners, ElementsAre("alice", "local", "local-2", "local.b"));
}

// R11
TEST_F(ControlTest, APageOfLongDescriptionsFitsAClientsMessage) {
  constexpr size_t kInstances = 90;
  v1::CreateInstanceRequest request = Mlp("");
  for (int i = 0; i < 120; ++i) {  // 30,720 bytes.
    request.mutable_settings()->add_frozen(std::string(250, '*') + "weight");
  }
  for (int i = 0; i < 1024; ++i) {  // 16,384 bytes.
    request.mutable_normalization()->add_mean(0.5);
    request.mutable_normalization()->add_std(0.5);
  }
  for (size_t i = 0; i < kInstances; ++i) {
    request.set_name(absl::StrCat("mlp-", i));
    ASSERT_THAT(client_.CreateInstance(request), IsOk());
  }
  v1::ListInstancesRequest list;
  std::set<std::string> names;
  int pages = 0;
  do {
    const auto page = client_.ListInstances(list);
    ASSERT_THAT(page, IsOk());
    EXPECT_LE(page->ByteSizeLong(), size_t{4} << 20);
    ASSERT_THAT(page->instances(), Not(IsEmpty()));
    for (const auto& instance : page->instances()) {
      EXPECT_TRUE(names.insert(instance.name()).second) << instance.name();
    }
    list.set_page_token(page->next_page_token());
    ++pages;
  } while (!list.page_token().empty());
  EXPECT_THAT(names, SizeIs(kInstances + 1));
  EXPECT_EQ(pages, 2);
}

TEST_F(ControlTest, RefusesPageTokensThatItNeverGave) {
  const auto invalid = [](const std::string& message) {
    return FailsWith(absl::StatusCode::kInvalidArgument,
                     v1::ERROR_REASON_INVALID_OPTION, HasSubstr(message));
  };
  v1::ListInstancesRequest instances;
  instances.set_page_token("seven");
  EXPECT_THAT(client_.ListInstances(instances), invalid("page_token"));
  v1::ListBenchmarksRequest benchmarks;
  benchmarks.set_page_size(-1);
  EXPECT_THAT(client_.ListBenchmarks(benchmarks), invalid("page_size"));
}

TEST_F(ControlTest, CreatesDescribesAndDeletesAnInstance) {
  const auto created = client_.CreateInstance(Mlp("mlp"));
  ASSERT_THAT(created, IsOk());
  const v1::Instance& instance = created->instance();
  EXPECT_EQ(instance.name(), "mlp");
  EXPECT_EQ(instance.owner(), "local");
  EXPECT_EQ(instance.architecture(), "mnistmlp");
  EXPECT_EQ(instance.arguments().at("num_classes").int_value(), 3);
  EXPECT_EQ(instance.device(), "cpu");
  EXPECT_EQ(instance.version().params(), 1U);
  EXPECT_FALSE(instance.ephemeral());
  EXPECT_EQ(instance.layout().parameters(0).name(), "fc1.weight");
  EXPECT_THAT(instance.layout().parameters(0).shape(), ElementsAre(4, 784));
  EXPECT_EQ(instance.layout().parameters(1).offset(), 4 * 784);
  EXPECT_EQ(instance.layout().parameter_elements(),
            4 * 784 + 4 + 4 * 4 + 4 + 3 * 4 + 3);
  EXPECT_EQ(instance.memory_bytes(),
            4 * instance.layout().parameter_elements());
  EXPECT_THAT(instance.layout().outputs(),
              ElementsAre("out", "features", "layers.0", "layers.1"));
  EXPECT_THAT(Names(), ElementsAre("local/fake", "local/mlp"));

  v1::GetInstanceRequest get;
  get.set_instance("local/mlp");
  get.set_digest(true);
  const auto got = client_.GetInstance(get);
  ASSERT_THAT(got, IsOk());
  EXPECT_THAT(got->instance().digest(), SizeIs(64));
  EXPECT_EQ(got->instance().version().uid(), instance.version().uid());

  v1::DeleteInstanceRequest remove;
  remove.set_instance("mlp");
  remove.mutable_if_version()->set_uid("other");
  EXPECT_THAT(client_.DeleteInstance(remove),
              FailsWith(absl::StatusCode::kAborted,
                        v1::ERROR_REASON_STALE_VERSION, HasSubstr("other")));
  remove.mutable_if_version()->set_uid(instance.version().uid());
  remove.mutable_if_version()->set_params(7);
  EXPECT_THAT(
      client_.DeleteInstance(remove),
      FailsWith(absl::StatusCode::kAborted, v1::ERROR_REASON_STALE_VERSION,
                HasSubstr("has params 7, the")));
  remove.mutable_if_version()->set_params(instance.version().params());
  EXPECT_THAT(client_.DeleteInstance(remove), IsOk());
  EXPECT_THAT(client_.GetInstance(get),
              FailsWith(absl::StatusCode::kNotFound,
                        v1::ERROR_REASON_INSTANCE_NOT_FOUND,
                        HasSubstr("\"local/mlp\"")));
}

TEST_F(ControlTest, RefusesInstancesThatMakeNoSense) {
  v1::CreateInstanceRequest typo;
  typo.set_benchmark("seq-nmist");
  EXPECT_THAT(client_.CreateInstance(typo),
              FailsWith(absl::StatusCode::kNotFound,
                        v1::ERROR_REASON_BENCHMARK_NOT_FOUND,
                        AllOf(HasSubstr("seq-nmist"), HasSubstr("seq-mnist"))));
  typo.set_architecture("resnet81");
  EXPECT_THAT(client_.CreateInstance(typo),
              FailsWith(absl::StatusCode::kNotFound,
                        v1::ERROR_REASON_ARCHITECTURE_NOT_FOUND,
                        AllOf(HasSubstr("resnet81"), HasSubstr("resnet18"))));
  const auto invalid = [](const std::string& message) {
    return FailsWith(absl::StatusCode::kInvalidArgument,
                     v1::ERROR_REASON_INVALID_OPTION, HasSubstr(message));
  };
  v1::CreateInstanceRequest request = Mlp("mlp");
  (*request.mutable_arguments())["num_classes"].set_string_value("3");
  EXPECT_THAT(client_.CreateInstance(request), invalid("num_classes"));
  request = Mlp("mlp");
  request.mutable_arguments()->erase("num_classes");
  EXPECT_THAT(client_.CreateInstance(request), invalid("num_classes"));
  request = Mlp("mlp");
  request.set_device("tpu");
  EXPECT_THAT(client_.CreateInstance(request), invalid("this server has cpu"));
  EXPECT_THAT(client_.CreateInstance(Mlp("../mlp")), invalid("\"../mlp\""));
  EXPECT_THAT(
      client_.CreateInstance(Mlp("fake")),
      FailsWith(absl::StatusCode::kAlreadyExists,
                v1::ERROR_REASON_INSTANCE_EXISTS, HasSubstr("\"fake\"")));
  EXPECT_THAT(Names(), ElementsAre("local/fake"));
}

TEST_F(ControlTest, TheUnnamedDieWithTheirSession) {
  PlainClient session(server_, "session-1");
  const auto unnamed = session.CreateInstance(Mlp(""));
  ASSERT_THAT(unnamed, IsOk());
  EXPECT_TRUE(unnamed->instance().ephemeral());
  EXPECT_THAT(session.CreateInstance(Mlp("named")), IsOk());
  EXPECT_THAT(session.Forward(TapedForwardOf(1), std::string(16, '\0')),
              IsOk());
  EXPECT_THAT(Names(), SizeIs(3));
  server_.Settle();  // The last call has ended.
  server_.SweepAfter(absl::Minutes(11));
  client_ = PlainClient(server_);
  EXPECT_THAT(Names(), ElementsAre("local/fake", "local/named"));
  EXPECT_EQ(server_.tape_count(), 0);
}

TEST_F(ControlTest, CountsWhatAnInstanceDid) {
  const std::string ones = Bytes({1, 1, 1, 1});
  const auto forward = client_.Forward(TapedForwardOf(1), ones);
  ASSERT_THAT(forward, IsOk());
  auto instance = client_.GetInstance()->instance();
  EXPECT_EQ(instance.counters().forwards(), 1);
  EXPECT_EQ(instance.tape_count(), 1);
  EXPECT_EQ(instance.tape_bytes(), forward->header.tape_bytes());
  EXPECT_GT(instance.tape_bytes(), 0);
  ASSERT_THAT(client_.Backward(BackwardOf(forward->header.tape_id(), 1), ones),
              IsOk());
  ASSERT_THAT(client_.SetParams(SetParamsOf(16), std::string(64, '\0')),
              IsOk());
  instance = client_.GetInstance()->instance();
  EXPECT_EQ(instance.counters().backwards(), 1);
  EXPECT_EQ(instance.counters().writes(), 1);
  EXPECT_EQ(instance.tape_count(), 0);
  EXPECT_EQ(instance.tape_bytes(), 0);
}

}  // namespace
}  // namespace backboned
