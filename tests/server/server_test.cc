#include "server/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <limits>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "base/errors.h"
#include "base/task.h"
#include "server/memory/memory_allocator.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_clock.h"
#include "tests/testing/wall_clock.h"

namespace backboned {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

constexpr int64_t kMaxInstances = 4;

class ServerTest : public ::testing::Test {
 protected:
  static CreateOptions Mlp(const std::string& name) {
    return {.name = name,
            .owner = "local",
            .architecture = "mnistmlp",
            .arguments = {{"num_classes", int64_t{3}},
                          {"mlp_hidden_size", int64_t{4}}},
            .beginning = Drawn{.seed = 0}};
  }

  // Creates an instance, which must succeed.
  Created Create(const CreateOptions& options) {
    absl::StatusOr<Created> created = BlockOn(server_.CreateInstance(options));
    EXPECT_THAT(created, IsOk());
    return *std::move(created);
  }

  // Expects a refusal that leaves no instance behind.
  void ExpectRefused(const CreateOptions& options, absl::StatusCode code,
                     Reason reason,
                     const ::testing::Matcher<const std::string&>& message) {
    const size_t before = server_.registry().List().size();
    const absl::Status status =
        BlockOn(server_.CreateInstance(options)).status();
    EXPECT_THAT(status, StatusIs(code, message));
    EXPECT_EQ(ReasonOf(status), reason);
    EXPECT_THAT(server_.registry().List(), SizeIs(before));
  }

  void ExpectInvalid(const CreateOptions& options, const std::string& message) {
    ExpectRefused(options, absl::StatusCode::kInvalidArgument,
                  Reason::kInvalidOption, HasSubstr(message));
  }

  std::string DigestOf(const Created& created) {
    return *BlockOn(created.instance->Digest(server_.chores(), {},
                                             created.instance->state()));
  }

  // Keeps an empty tape for `instance`.
  void PutTape(const Instance& instance, const std::string& session) {
    EXPECT_THAT(server_.tapes().Put(
                    {.instance_uid = instance.uid(),
                     .principal = "local",
                     .session = session,
                     .bytes = 8},
                    server_.tapes()
                        .Reserve({"local", session}, server_.clock().Now())
                        .value(),
                    server_.clock().Now()),
                IsOk());
  }

  // Begins and ends a call of `session`.
  void Call(const std::string& session) {
    EXPECT_THAT(
        server_.sessions().Begin(session, "local", server_.clock().Now()),
        IsOk());
  }

  Server server_{{c10::Device(c10::DeviceType::CPU)},
                 /*threads=*/1,
                 {.limits = {.max_instances = kMaxInstances, .quotas = {}}}};
};

TEST_F(ServerTest, CreatesABenchmarksInstance) {
  const Created created =
      Create({.name = "a", .owner = "local", .benchmark = "seq-mnist"});
  EXPECT_EQ(created.instance->identity().benchmark, "seq-mnist");
  EXPECT_EQ(created.instance->architecture().name(), "mnistmlp");
  EXPECT_FALSE(created.existed);
  EXPECT_THAT(server_.registry().Find("a", {"local"}),
              IsOkAndHolds(created.instance));
}

TEST_F(ServerTest, ListsWhatThereIsForUnknownNames) {
  ExpectRefused({.name = "a", .benchmark = "seq-nmist"},
                absl::StatusCode::kNotFound, Reason::kBenchmarkNotFound,
                AllOf(HasSubstr("seq-nmist"), HasSubstr("seq-mnist"),
                      HasSubstr("seq-cifar10")));
  ExpectRefused({.name = "a", .architecture = "resnet81"},
                absl::StatusCode::kNotFound, Reason::kArchitectureNotFound,
                AllOf(HasSubstr("resnet81"), HasSubstr("resnet18"),
                      HasSubstr("mnistmlp")));
  CreateOptions options = Mlp("a");
  options.arguments["hidden"] = int64_t{4};
  ExpectRefused(options, absl::StatusCode::kInvalidArgument,
                Reason::kInvalidOption,
                AllOf(HasSubstr("hidden"), HasSubstr("mlp_hidden_size")));
  options = Mlp("a");
  options.device = "cuda:1";
  ExpectRefused(options, absl::StatusCode::kInvalidArgument,
                Reason::kInvalidOption,
                AllOf(HasSubstr("cuda:1"), HasSubstr("this server has cpu")));
}

TEST_F(ServerTest, NeedsABenchmarkOrAnArchitecture) {
  ExpectInvalid({.name = "a"}, "neither benchmark nor architecture");
  CreateOptions both = Mlp("a");
  both.benchmark = "seq-mnist";
  ExpectInvalid(both, "either benchmark or architecture, not both");
}

TEST_F(ServerTest, RefusesBadNames) { ExpectInvalid(Mlp("A/b"), "A/b"); }

TEST_F(ServerTest, RefusesATakenName) {
  const Created first = Create(Mlp("a"));
  ExpectRefused(Mlp("a"), absl::StatusCode::kAlreadyExists,
                Reason::kInstanceExists, HasSubstr("\"a\""));
  CreateOptions elsewhere = Mlp("a");
  elsewhere.owner = "bert";
  EXPECT_NE(Create(elsewhere).instance, first.instance);
}

TEST_F(ServerTest, GivesTheExistingOneIfItIsEqual) {
  const Created first = Create(Mlp("a"));
  CreateOptions again = Mlp("a");
  again.exist_ok = true;
  again.beginning = Drawn{.seed = 7};
  const Created second = Create(again);
  EXPECT_EQ(second.instance, first.instance);
  EXPECT_TRUE(second.existed);
  again.arguments["num_classes"] = int64_t{5};
  ExpectRefused(again, absl::StatusCode::kAlreadyExists,
                Reason::kInstanceExists, HasSubstr("other arguments"));
}

TEST_F(ServerTest, TakesAnInstanceThatDiffersForAnother) {
  CreateOptions first = Mlp("a");
  first.normalization = {.mean = {0.5}, .std = {0.5}};
  first.settings = {.frozen = {"fc1.*"}, .feature_cache_bytes = 10'000};
  Create(first);
  const auto expect = [&](const std::string& message, auto change) {
    CreateOptions again = first;
    again.exist_ok = true;
    change(again);
    ExpectRefused(again, absl::StatusCode::kAlreadyExists,
                  Reason::kInstanceExists, HasSubstr(message));
  };
  expect("instance \"a\" exists already, but has another normalization",
         [](CreateOptions& o) { o.normalization.reset(); });
  expect("instance \"a\" exists already, but has another normalization",
         [](CreateOptions& o) { o.normalization->std = {0.25}; });
  expect("instance \"a\" exists already, but is not read-only",
         [](CreateOptions& o) { o.settings->read_only = true; });
  expect("instance \"a\" exists already, but has other frozen parameters",
         [](CreateOptions& o) { o.settings->frozen.clear(); });
  expect(
      "instance \"a\" exists already, but has a feature cache of 10000 bytes, "
      "not 20000",
      [](CreateOptions& o) { o.settings->feature_cache_bytes = 20'000; });
  CreateOptions equal = first;
  equal.exist_ok = true;
  EXPECT_TRUE(Create(equal).existed);
  // A cache changes no answer: a caller without a wish for one may find one.
  equal.settings->feature_cache_bytes = 0;
  EXPECT_TRUE(Create(equal).existed);
}

TEST_F(ServerTest, AnEqualNameBehindColumnsOfEqualNamesIsNoEqualInstance) {
  const auto column = [](const std::string& name) {
    return CreateOptions{
        .name = name,
        .owner = "local",
        .architecture = "mnistmlp-pnn",
        .arguments = {{"num_classes", int64_t{3}}, {"input_size", int64_t{4}}},
        .beginning = Drawn{.seed = 0}};
  };
  const Created first = Create(column("first"));
  CreateOptions behind = column("behind");
  behind.columns = {first.instance};
  behind.exist_ok = true;
  Create(behind);
  EXPECT_TRUE(Create(behind).existed);
  EXPECT_THAT(server_.DeleteInstance(*first.instance), IsOk());
  behind.columns = {Create(column("first")).instance};
  ExpectRefused(behind, absl::StatusCode::kAlreadyExists,
                Reason::kInstanceExists,
                HasSubstr("has other earlier columns"));
}

// R5
TEST_F(ServerTest, RefusesMoreInstancesThanTheLimit) {
  for (int i = 0; i < kMaxInstances; ++i) Create(Mlp("a" + std::to_string(i)));
  ExpectRefused(Mlp("b"), absl::StatusCode::kResourceExhausted,
                Reason::kLimitReached,
                HasSubstr("this server uses 4 of its 4"));
  EXPECT_THAT(server_.DeleteInstance(*server_.registry().Get("local", "a0")),
              IsOk());
  Create(Mlp("b"));
}

TEST_F(ServerTest, DrawsEquallyFromASeedAndItsGeneratorState) {
  const Created seeded = Create(Mlp("a"));
  CreateOptions options = Mlp("b");
  const std::string before = GeneratorState(SeededGenerator(0));
  options.beginning = Drawn{.rng_state = before};
  const Created drawn = Create(options);
  EXPECT_EQ(DigestOf(drawn), DigestOf(seeded));
  EXPECT_THAT(seeded.rng_state, IsEmpty());
  EXPECT_THAT(drawn.rng_state, SizeIs(kGeneratorStateBytes));
  EXPECT_NE(drawn.rng_state, before);

  options = Mlp("c");
  options.beginning = Drawn{.seed = 1};
  EXPECT_NE(DigestOf(Create(options)), DigestOf(seeded));
}

TEST_F(ServerTest, DrawsNothingForOneWhoIsLate) {
  const auto account = std::make_shared<MemoryAccount>("a");
  CreateOptions options = Mlp("late");
  options.caller = {.deadline = absl::InfinitePast(), .account = account};
  EXPECT_THAT(BlockOn(server_.CreateInstance(options)),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(account->peak_bytes(), 0);
  EXPECT_EQ(server_.registry().Get("local", "late"), nullptr);
}

TEST_F(ServerTest, WhoAsksPaysForWhatIsDrawn) {
  CpuMemory();  // Counts from its first call on.
  const auto account = std::make_shared<MemoryAccount>("a", 1000);
  CreateOptions options = Mlp("large");
  options.caller.account = account;
  const absl::Status refused =
      BlockOn(server_.CreateInstance(options)).status();
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted));
  ASSERT_TRUE(LimitOf(refused).has_value());
  EXPECT_EQ(LimitOf(refused)->name, "a");
  EXPECT_EQ(account->live_bytes(), 0);
  EXPECT_EQ(server_.registry().Get("local", "large"), nullptr);
}

TEST_F(ServerTest, RefusesUnusableGeneratorStates) {
  CreateOptions options = Mlp("a");
  options.beginning =
      Drawn{.seed = 0, .rng_state = GeneratorState(SeededGenerator(0))};
  ExpectInvalid(options, "either seed or rng_state");
  options.beginning =
      Drawn{.rng_state = std::string(kGeneratorStateBytes - 1, 'a')};
  ExpectInvalid(options, "has 5055 bytes, expected 5056");
  options.beginning =
      Drawn{.rng_state = std::string(kGeneratorStateBytes, '\xff')};
  ExpectInvalid(options, "not one of a CPU generator");
}

TEST_F(ServerTest, RefusesANormalizationThatDoesNotFit) {
  CreateOptions options = {.name = "a", .benchmark = "seq-cifar10"};
  options.normalization = {.mean = {0, 0, 0}, .std = {1, 1}};
  ExpectInvalid(options, "3 means and 2 standard deviations");
  options.normalization = {.mean = {0, 0}, .std = {1, 1}};
  ExpectInvalid(options, "2 channels, the input has 3");
}

// R11
TEST_F(ServerTest, RefusesANormalizationOfMoreChannelsThanImagesHave) {
  CreateOptions options = Mlp("a");  // Takes any channels.
  options.normalization = {.mean = std::vector<double>(1025, 0),
                           .std = std::vector<double>(1025, 1)};
  ExpectInvalid(options, "normalization has 1025 channels, at most 1024");
  options.normalization = {.mean = std::vector<double>(1024, 0),
                           .std = std::vector<double>(1024, 1)};
  Create(options);
}

TEST_F(ServerTest, RefusesANormalizationThatGivesNoNumbers) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  CreateOptions options = {.name = "a", .benchmark = "seq-cifar10"};
  for (double deviation : {0.0, -1.0, 1e-60, kInfinity, std::nan("")}) {
    options.normalization = {.mean = {0, 0, 0}, .std = {1, deviation, 1}};
    ExpectInvalid(options, "standard deviation that is not positive");
  }
  options.normalization = {.mean = {0, kInfinity, 0}, .std = {1, 1, 1}};
  ExpectInvalid(options, "mean that is not finite");
}

TEST_F(ServerTest, NamesTheUnnamedAndDropsThemWithTheirSession) {
  CreateOptions options = Mlp("");
  options.session = "s";
  absl::StatusOr<SessionCall> call =
      server_.sessions().Begin("s", "local", server_.clock().Now());
  ASSERT_THAT(call, IsOk());
  const Created unnamed = Create(options);
  const Created second = Create(options);
  EXPECT_THAT(unnamed.instance->identity().name, StartsWith("mnistmlp-"));
  EXPECT_NE(unnamed.instance->FullName(), second.instance->FullName());
  EXPECT_TRUE(unnamed.instance->identity().ephemeral);
  options.name = "named";
  const Created named = Create(options);
  PutTape(*unnamed.instance, "s");

  server_.Sweep(server_.clock().Now() + absl::Hours(1));
  EXPECT_THAT(server_.registry().List(), SizeIs(3));  // A call is in flight.
  *call = SessionCall();
  server_.Sweep(server_.clock().Now() + absl::Hours(3));
  EXPECT_THAT(server_.registry().List(),
              ::testing::ElementsAre(named.instance));
  EXPECT_EQ(server_.tapes().TotalFigures().count, 0);
}

TEST_F(ServerTest, KeepsWhatASessionHasThoughTheWallClockIsSet) {
  CreateOptions options = Mlp("");
  options.session = "s";
  absl::StatusOr<SessionCall> call =
      server_.sessions().Begin("s", "local", server_.clock().Now());
  ASSERT_THAT(call, IsOk());
  const Created unnamed = Create(options);
  PutTape(*unnamed.instance, "s");
  *call = SessionCall();
  for (const absl::Duration step : {absl::Hours(1), -absl::Hours(2)}) {
    StepWallClock(step);
    server_.Sweep(server_.clock().Now());
    EXPECT_THAT(server_.registry().List(), SizeIs(1)) << step;
    EXPECT_EQ(server_.tapes().TotalFigures().count, 1) << step;
    Call("s");
  }
  StepWallClock(absl::Hours(1));
  server_.Sweep(server_.clock().Now());
  EXPECT_THAT(server_.registry().List(), SizeIs(1));
}

TEST_F(ServerTest, RefusesUnnamedInstancesOfASessionThatDoesNotLive) {
  CreateOptions options = Mlp("");
  options.session = "gone";
  EXPECT_THAT(BlockOn(server_.CreateInstance(options)),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(server_.registry().List(), IsEmpty());
}

TEST_F(ServerTest, DropsTheTapesOfASession) {
  const Created created = Create(Mlp("a"));
  Call("s");
  Call("t");
  PutTape(*created.instance, "s");
  PutTape(*created.instance, "");
  const absl::Time soon = server_.clock().Now() + absl::Minutes(5);
  server_.Sweep(soon);
  EXPECT_EQ(server_.tapes().TotalFigures().count, 2);
  server_.Sweep(server_.clock().Now() + absl::Minutes(20));  // Over both TTLs.
  EXPECT_EQ(server_.tapes().TotalFigures().count, 0);
  EXPECT_EQ(server_.sessions().count(), 0);
  EXPECT_THAT(server_.registry().List(), SizeIs(1));
}

TEST(ServerClockTest, ASessionThatComesBackWhileItIsSweptKeepsItsNewTapes) {
  TestClock clock;
  Server server({c10::Device(c10::DeviceType::CPU)}, /*threads=*/1,
                {.limits = {.tape_ttl = absl::Hours(1)}}, {}, clock);
  const auto put_tape = [&] {
    EXPECT_THAT(server.tapes().Put(
                    {.principal = "local", .session = "s", .bytes = 8},
                    server.tapes().Reserve({"local", "s"}, clock.Now()).value(),
                    clock.Now()),
                IsOk());
  };
  {
    const auto call = server.sessions().Begin("s", "local", clock.Now());
    EXPECT_THAT(call, IsOk());
    put_tape();
  }
  clock.Advance(absl::Minutes(11));
  const absl::Time swept = clock.Now();
  clock.Advance(absl::Milliseconds(1));
  put_tape();  // As by a call during the sweep.
  server.Sweep(swept);
  EXPECT_EQ(server.sessions().count(), 0);
  EXPECT_EQ(server.tapes().TotalFigures().count, 1);
}

// Throws once when armed, at the first call by a thread that is not a worker's:
// the sweeper. Thread-safe.
class FailingClock : public TestClock {
 public:
  absl::Time Now() const override {
    if (armed_ && !workers_.contains(std::this_thread::get_id())) {
      if (!thrown_.exchange(true)) throw std::runtime_error("no time");
      if (!asked_again_.HasBeenNotified()) asked_again_.Notify();
    }
    return TestClock::Now();
  }

  // `workers`: the threads in which it does not throw.
  void Arm(std::set<std::thread::id> workers) {
    workers_ = std::move(workers);
    armed_ = true;
  }

  // Returns once it was called again after it threw.
  void WaitUntilAskedAgain() { asked_again_.WaitForNotification(); }

 private:
  std::set<std::thread::id> workers_;  // Not changed once armed.
  std::atomic<bool> armed_ = false;
  mutable std::atomic<bool> thrown_ = false;
  mutable absl::Notification asked_again_;
};

TEST(ServerClockTest, TheSweeperOutlivesWhatItThrows) {
  FailingClock clock;
  Server server({c10::Device(c10::DeviceType::CPU)}, /*threads=*/1, {}, {},
                clock);
  std::set<std::thread::id> workers;
  for (DeviceWorker* worker : {server.workers().front(), &server.chores()}) {
    EXPECT_THAT(
        BlockOn(worker->Run({.principal = "local"},
                            [&] {
                              workers.insert(std::this_thread::get_id());
                              return absl::OkStatus();
                            })),
        IsOk());
  }
  clock.Arm(std::move(workers));
  clock.WaitUntilAskedAgain();  // In the sweeps of the next seconds.
}

TEST_F(ServerTest, DeletesAnInstanceWithItsTapesOnce) {
  const Created a = Create(Mlp("a"));
  const Created b = Create(Mlp("b"));
  PutTape(*a.instance, "");
  PutTape(*b.instance, "");
  EXPECT_THAT(server_.DeleteInstance(*a.instance), IsOk());
  EXPECT_EQ(server_.tapes().TotalFigures().count, 1);
  const absl::Status again = server_.DeleteInstance(*a.instance);
  EXPECT_THAT(again, StatusIs(absl::StatusCode::kNotFound, HasSubstr("\"a\"")));
  EXPECT_EQ(ReasonOf(again), Reason::kInstanceNotFound);
  EXPECT_NE(Create(Mlp("a")).instance->uid(), a.instance->uid());
}

TEST_F(ServerTest, FindsItsWorkers) {
  EXPECT_THAT(server_.FindWorker(""), IsOkAndHolds(server_.workers().front()));
  EXPECT_THAT(server_.FindWorker("cpu"),
              IsOkAndHolds(server_.workers().front()));
  EXPECT_THAT(server_.FindWorker("tpu"),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace backboned
