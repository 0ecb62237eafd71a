#include "server/instances/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/errors.h"
#include "tests/testing/fake_architecture.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class RegistryTest : public ::testing::Test {
 protected:
  std::shared_ptr<Instance> Make(const std::string& owner,
                                 const std::string& name,
                                 const Settings& settings = {}) {
    return std::make_shared<Instance>(
        Instance::Identity{.name = name, .owner = owner}, architecture_,
        worker_, std::make_shared<const State>(), settings);
  }

  std::shared_ptr<Instance> Add(const std::string& owner,
                                const std::string& name,
                                const Settings& settings = {}) {
    std::shared_ptr<Instance> instance = Make(owner, name, settings);
    EXPECT_THAT(registry_.Add(instance), IsOk());
    return instance;
  }

  DeviceWorker worker_{c10::Device(c10::DeviceType::CPU), 1, {}};
  std::shared_ptr<const FakeArchitecture> architecture_ =
      std::make_shared<const FakeArchitecture>(2);
  Registry registry_{/*max_instances=*/3, /*quotas=*/{}};
};

TEST_F(RegistryTest, FindsTheCallersOwnBeforeTheServers) {
  const auto hosted = Add("server", "net");
  EXPECT_THAT(registry_.Find("net", {"anna"}), IsOkAndHolds(hosted));
  const auto own = Add("anna", "net");
  EXPECT_THAT(registry_.Find("net", {"anna"}), IsOkAndHolds(own));
  EXPECT_THAT(registry_.Find("net", {"bert"}), IsOkAndHolds(hosted));
}

TEST_F(RegistryTest, TellsOfChangesBehindThem) {
  std::vector<std::string> told;
  registry_.SetListener([&](std::string_view name) {
    const bool is_there = registry_.Get("anna", name) != nullptr;
    told.push_back(std::string(name) + (is_there ? " is there" : " is not"));
  });
  const auto net = Add("anna", "net");
  EXPECT_THAT(registry_.Add(net), Not(IsOk()));
  registry_.TellChange(*net);
  EXPECT_TRUE(registry_.Remove(*net));
  EXPECT_FALSE(registry_.Remove(*net));
  registry_.SetListener(nullptr);
  Add("anna", "net");
  EXPECT_THAT(told, ElementsAre("net is there", "net is there", "net is not"));
}

TEST_F(RegistryTest, KnowsWhoNobodyUses) {
  std::shared_ptr<Instance> instance = Add("anna", "net");
  int changes = 0;
  std::shared_ptr<Instance> user = *registry_.Find("net", {"anna"});
  EXPECT_FALSE(registry_.IfUnused(instance, [&] { ++changes; }));
  user.reset();
  EXPECT_TRUE(registry_.IfUnused(instance, [&] { ++changes; }));
  EXPECT_EQ(changes, 1);
}

TEST_F(RegistryTest, FindsSomebodyElsesByOwnerAndNameIfItIsShared) {
  const auto shared = Add("anna", "net", {.shared = true});
  Add("anna", "own");
  EXPECT_THAT(registry_.Find("anna/net", {"bert"}), IsOkAndHolds(shared));
  EXPECT_THAT(registry_.Find("anna/own", {"bert"}),
              StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(registry_.ListFor({"bert"}), ElementsAre(shared));
  EXPECT_THAT(registry_.Find("net", {"bert"}),
              StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(RegistryTest, NamesWhatItDoesNotFind) {
  Add("anna", "net");
  for (const char* reference : {"nett", "bert/net", "anna/", "/net", "a/b/c"}) {
    const auto found = registry_.Find(reference, {"anna"});
    EXPECT_THAT(found,
                StatusIs(absl::StatusCode::kNotFound, HasSubstr(reference)));
    EXPECT_EQ(ReasonOf(found.status()), Reason::kInstanceNotFound);
  }
  EXPECT_THAT(
      registry_.Find("", {"anna"}),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("names no instance")));
  EXPECT_THAT(registry_.Find("a\nb\xff", {"anna"}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("a\\nb\\377")));
}

TEST_F(RegistryTest, RefusesATakenName) {
  const auto first = Add("anna", "net");
  const absl::Status status = registry_.Add(Make("anna", "net"));
  EXPECT_THAT(status,
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("\"net\"")));
  EXPECT_EQ(ReasonOf(status), Reason::kInstanceExists);
  EXPECT_THAT(registry_.Find("net", {"anna"}), IsOkAndHolds(first));
}

// R5
TEST_F(RegistryTest, RefusesMoreInstancesThanTheLimit) {
  Add("anna", "a");
  Add("anna", "b");
  const auto last = Add("bert", "a");
  EXPECT_THAT(registry_.CheckRoom({.principal = "bert"}),
              StatusIs(absl::StatusCode::kResourceExhausted));
  const absl::Status status = registry_.Add(Make("bert", "b"));
  ASSERT_TRUE(LimitOf(status).has_value());
  EXPECT_EQ(LimitOf(status)->name, "max-instances");
  EXPECT_EQ(LimitOf(status)->value, 3);
  EXPECT_EQ(LimitOf(status)->requested, 4);
  EXPECT_TRUE(registry_.Remove(*last));
  EXPECT_THAT(registry_.Add(Make("bert", "b")), IsOk());
}

TEST_F(RegistryTest, RefusesMoreInstancesThanAPrincipalsPart) {
  Registry registry(/*max_instances=*/4, {.principals = {{"anna", 0.5}}});
  ASSERT_THAT(registry.Add(Make("anna", "a")), IsOk());
  ASSERT_THAT(registry.Add(Make("anna", "b")), IsOk());
  const absl::Status status = registry.Add(Make("anna", "c"));
  ASSERT_TRUE(LimitOf(status).has_value()) << status;
  EXPECT_EQ(LimitOf(status)->name, "max-instances");
  EXPECT_EQ(LimitOf(status)->value, 2);
  EXPECT_EQ(LimitOf(status)->scope, LimitScope::kPrincipal);
  EXPECT_THAT(registry.Add(Make("bert", "a")), IsOk());
}

TEST_F(RegistryTest, RemovesOnlyThisVeryInstance) {
  const auto first = Add("anna", "net");
  EXPECT_TRUE(registry_.Remove(*first));
  const auto second = Add("anna", "net");
  EXPECT_FALSE(registry_.Remove(*first));
  EXPECT_THAT(registry_.List(), ElementsAre(second));
  EXPECT_TRUE(registry_.Remove(*second));
  EXPECT_THAT(registry_.List(), IsEmpty());
}

TEST_F(RegistryTest, ListsByOwnerAndName) {
  const auto b = Add("anna", "b");
  const auto z = Add("bert", "a");
  const auto a = Add("anna", "a");
  EXPECT_THAT(registry_.List(), ElementsAre(a, b, z));
}

}  // namespace
}  // namespace backboned
