#include "server/tapes/tape_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "base/errors.h"
#include "server/limits/memory_account.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::SizeIs;

absl::Time At(int64_t seconds) {
  return absl::UnixEpoch() + absl::Seconds(seconds);
}

const Payer kPayer = {.principal = "local", .session = "session"};

std::byte some_byte;

// Returns a graph that calls `destroyed` when its last holder releases it.
std::shared_ptr<Graph> FakeGraph(std::function<void()> destroyed) {
  std::shared_ptr<void> owner(
      nullptr, [destroyed = std::move(destroyed)](void*) { destroyed(); });
  // Never dereferenced; only not null, like the graph of a real tape.
  return {std::move(owner), reinterpret_cast<Graph*>(&some_byte)};
}

// A replay that keeps `bytes`.
class FakeReplay : public Replay {
 public:
  explicit FakeReplay(int64_t bytes) : bytes_(bytes) {}

  std::shared_ptr<Graph> Run() const override { return nullptr; }
  int64_t bytes() const override { return bytes_; }
  void ForEachStateTensor(
      absl::FunctionRef<void(const at::Tensor&)> /*visit*/) const override {}
  void CountDemotion() const override { ++demotions_; }

  int demotions() const { return demotions_; }
  void SetBytes(int64_t bytes) { bytes_ = bytes; }

 private:
  int64_t bytes_;
  mutable int demotions_ = 0;
};

class TapeStoreTest : public ::testing::Test {
 protected:
  Tape MakeTape(int64_t bytes = 100) {
    return {.instance_uid = "uid",
            .principal = "local",
            .session = "session",
            .bytes = bytes,
            .graph = FakeGraph([this] { ++destroyed_; })};
  }

  // Returns a tape whose replay keeps 10 bytes.
  Tape MakeReplayable(int64_t bytes) {
    Tape tape = MakeTape(bytes);
    tape.replay = replay_;
    return tape;
  }

  // Returns whether the tape gave up its graph.
  bool IsDemoted(const std::string& id) {
    const absl::StatusOr<TapeLease> lease = Lease({id});
    EXPECT_THAT(lease, IsOk());
    return lease->tapes()[0]->graph == nullptr;
  }

  static absl::StatusOr<std::string> Put(TapeStore& store, Tape tape,
                                         absl::Time now = At(0)) {
    absl::StatusOr<TapeSlot> slot =
        store.Reserve({tape.principal, tape.session}, now);
    if (!slot.ok()) return slot.status();
    return store.Put(std::move(tape), *std::move(slot), now);
  }

  absl::StatusOr<std::string> Put(Tape tape, absl::Time now = At(0)) {
    return Put(store_, std::move(tape), now);
  }

  absl::StatusOr<TapeLease> Lease(const std::vector<std::string>& ids,
                                  absl::Time now = At(0)) {
    return store_.Lease(ids, "uid", "local", now);
  }

  static auto NotFound(const std::string& what) {
    return StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(what));
  }

  TapeStore store_{
      {.max_count = 3, .max_bytes = 1000, .ttl = absl::Seconds(60)}};
  int destroyed_ = 0;
  std::shared_ptr<FakeReplay> replay_ = std::make_shared<FakeReplay>(10);
};

TEST_F(TapeStoreTest, IdsAre128RandomBitsInHex) {
  std::set<std::string> ids;
  for (int i = 0; i < 3; ++i) ids.insert(*Put(MakeTape()));
  EXPECT_THAT(ids, SizeIs(3));
  EXPECT_THAT(*ids.begin(), MatchesRegex("[0-9a-f]{32}"));
}

TEST_F(TapeStoreTest, LeaseGivesTapesInTheOrderAskedFor) {
  const std::string first = *Put(MakeTape());
  const std::string second = *Put(MakeTape());
  const absl::StatusOr<TapeLease> lease = Lease({second, first});
  ASSERT_THAT(lease, IsOk());
  ASSERT_THAT(lease->tapes(), SizeIs(2));
  EXPECT_EQ(lease->tapes()[0]->id, second);
  EXPECT_EQ(lease->tapes()[1]->id, first);
}

TEST_F(TapeStoreTest, ConsumedTapeIsUsedUp) {
  const std::string id = *Put(MakeTape());
  absl::StatusOr<TapeLease> lease = Lease({id});
  lease->Consume();
  lease->Consume();  // Nothing is left.
  EXPECT_THAT(lease->tapes(), SizeIs(0));
  EXPECT_EQ(destroyed_, 1);
  EXPECT_EQ(store_.TotalFigures().count, 0);
  const absl::Status used = Lease({id}).status();
  EXPECT_THAT(used, NotFound("tape \"" + id +
                             "\" is unknown, used, released or "
                             "expired; run the forward again"));
  EXPECT_EQ(ReasonOf(used), Reason::kTapeNotFound);
}

TEST_F(TapeStoreTest, ReturnedTapeCanBeLeasedAgain) {
  const std::string id = *Put(MakeTape());
  { const auto lease = Lease({id}); }
  EXPECT_EQ(destroyed_, 0);
  EXPECT_THAT(Lease({id}), IsOk());
}

TEST_F(TapeStoreTest, LeasedTapeIsInUse) {
  const std::string id = *Put(MakeTape());
  const auto lease = Lease({id});
  EXPECT_THAT(Lease({id}), NotFound("is in use by another backward"));
}

TEST_F(TapeStoreTest, LeaseTakesAllOrNone) {
  const std::string id = *Put(MakeTape());
  EXPECT_THAT(Lease({id, "gone"}), NotFound("tape \"gone\" is unknown"));
  EXPECT_THAT(Lease({id}), IsOk());
}

TEST_F(TapeStoreTest, RefusesTapeNamedTwice) {
  const std::string id = *Put(MakeTape());
  const absl::Status twice = Lease({id, id}).status();
  EXPECT_THAT(twice, StatusIs(absl::StatusCode::kInvalidArgument,
                              HasSubstr("is named twice")));
  EXPECT_EQ(ReasonOf(twice), Reason::kInvalidOption);
  EXPECT_THAT(Lease({id}), IsOk());
}

TEST_F(TapeStoreTest, RefusesTapeOfAnotherInstance) {
  const std::string id = *Put(MakeTape());
  EXPECT_THAT(store_.Lease({id}, "other", "local", At(0)),
              NotFound("is of another instance"));
}

TEST_F(TapeStoreTest, HidesTapesOfOtherPrincipals) {
  const std::string id = *Put(MakeTape());
  EXPECT_THAT(store_.Lease({id}, "uid", "mallory", At(0)),
              NotFound("is unknown"));
  EXPECT_EQ(store_.Release({id}, "mallory"), 0);
  EXPECT_THAT(Lease({id}), IsOk());
}

TEST_F(TapeStoreTest, RefusesOverTheCountBeforeTheForward) {
  for (int i = 0; i < 3; ++i) ASSERT_THAT(Put(MakeTape()), IsOk());
  const absl::Status refused = store_.Reserve(kPayer, At(0)).status();
  EXPECT_THAT(refused,
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("no room for 1 more tape: this server uses 3 "
                                 "of its 3 of max-tapes; run backwards")));
  ASSERT_TRUE(LimitOf(refused).has_value());
  EXPECT_EQ(LimitOf(refused)->name, "max-tapes");
  EXPECT_EQ(LimitOf(refused)->value, 3);
  EXPECT_EQ(LimitOf(refused)->requested, 4);
  EXPECT_GT(LimitOf(refused)->retry_delay, absl::ZeroDuration());
}

TEST_F(TapeStoreTest, SlotHoldsAPlaceUntilItIsGone) {
  {
    std::vector<absl::StatusOr<TapeSlot>> slots;
    slots.reserve(3);
    for (int i = 0; i < 3; ++i) slots.push_back(store_.Reserve(kPayer, At(0)));
    EXPECT_THAT(store_.Reserve(kPayer, At(0)),
                StatusIs(absl::StatusCode::kResourceExhausted));
    EXPECT_THAT(store_.Put(MakeTape(), *std::move(slots[0]), At(0)), IsOk());
    EXPECT_THAT(store_.Reserve(kPayer, At(0)),
                StatusIs(absl::StatusCode::kResourceExhausted));
  }
  EXPECT_THAT(store_.Reserve(kPayer, At(0)), IsOk());
}

TEST_F(TapeStoreTest, RefusesOverTheBytesAndDropsTheTape) {
  ASSERT_THAT(Put(MakeTape(600)), IsOk());
  const absl::Status refused = Put(MakeTape(401)).status();
  EXPECT_THAT(refused,
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("no room for a tape of 401 bytes: ")));
  EXPECT_EQ(LimitOf(refused)->name, "max-tape-bytes");
  EXPECT_EQ(LimitOf(refused)->requested, 1001);
  EXPECT_GT(LimitOf(refused)->retry_delay, absl::ZeroDuration());
  EXPECT_EQ(destroyed_, 1);
  EXPECT_EQ(store_.TotalFigures().count, 1);
  EXPECT_THAT(Put(MakeTape(400)), IsOk());  // The slot is free again.
  EXPECT_THAT(store_.Reserve(kPayer, At(0)),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_F(TapeStoreTest, GivesNoRetryDelayForATapeThatNeverFits) {
  ASSERT_THAT(Put(MakeTape(1)), IsOk());
  const auto delay_of = [&](int64_t bytes) {
    return LimitOf(Put(MakeTape(bytes)).status())->retry_delay;
  };
  EXPECT_GT(delay_of(1000), absl::ZeroDuration());
  EXPECT_EQ(delay_of(1001), absl::ZeroDuration());
}

TEST_F(TapeStoreTest, DemotesTheOldestUntilTheNewOneFits) {
  const std::string first = *Put(MakeReplayable(400));
  const std::string second = *Put(MakeReplayable(400));
  const std::string third = *Put(MakeReplayable(590));  // Fills the store.
  EXPECT_TRUE(IsDemoted(first));
  EXPECT_FALSE(IsDemoted(second));
  EXPECT_FALSE(IsDemoted(third));
  EXPECT_EQ(destroyed_, 1);
  EXPECT_EQ(replay_->demotions(), 1);
  const TapeStore::Figures all = {.count = 3, .bytes = 10 + 400 + 590};
  EXPECT_EQ(store_.TotalFigures(), all);
  EXPECT_EQ(store_.InstanceFigures("uid"), all);
  EXPECT_EQ(store_.DropInstance("uid"), 3);
  EXPECT_EQ(store_.TotalFigures(), TapeStore::Figures());
}

TEST_F(TapeStoreTest, DemotesAsManyAsItTakes) {
  const std::string first = *Put(MakeReplayable(490));
  const std::string second = *Put(MakeReplayable(490));
  const std::string third = *Put(MakeReplayable(980));
  EXPECT_TRUE(IsDemoted(first));
  EXPECT_TRUE(IsDemoted(second));
  EXPECT_FALSE(IsDemoted(third));
  EXPECT_EQ(replay_->demotions(), 2);
}

TEST_F(TapeStoreTest, DemotesForATapeThatNeedsTheWholeStore) {
  replay_->SetBytes(0);
  const std::string small = *Put(MakeReplayable(600));
  const std::string large = *Put(MakeReplayable(1000));
  EXPECT_TRUE(IsDemoted(small));
  EXPECT_FALSE(IsDemoted(large));
}

TEST_F(TapeStoreTest, ADemotedTapeGivesUpItsAccount) {
  Tape tape = MakeReplayable(5000);
  tape.account = std::make_shared<MemoryAccount>("max-memory-bytes");
  const std::weak_ptr<MemoryAccount> account = tape.account;
  ASSERT_THAT(Put(std::move(tape)), IsOk());
  EXPECT_TRUE(account.expired());
}

TEST_F(TapeStoreTest, DemotesATapeThatAloneIsOverTheBytesAndNoOther) {
  const std::string small = *Put(MakeReplayable(600));
  const std::string large = *Put(MakeReplayable(5000));
  EXPECT_TRUE(IsDemoted(large));
  EXPECT_FALSE(IsDemoted(small));
  EXPECT_EQ(store_.TotalFigures().bytes, 610);
}

TEST_F(TapeStoreTest, DemotesOnlyAPrincipalsOwnOverItsPart) {
  TapeStore store({.max_count = 9,
                   .max_bytes = 1000,
                   .quotas = {.principals = {{"anna", 0.4}}}});
  const auto put = [&](const std::string& principal, int64_t bytes) {
    Tape tape = MakeReplayable(bytes);
    tape.principal = principal;
    return *Put(store, std::move(tape));
  };
  const auto is_demoted = [&](const std::string& principal,
                              const std::string& id) {
    return store.Lease({id}, "uid", principal, At(0))->tapes()[0]->graph ==
           nullptr;
  };
  const std::string others = put("bert", 450);  // The oldest and largest.
  const std::string first = put("anna", 200);
  const std::string second = put("anna", 150);
  const std::string third = put("anna", 200);
  EXPECT_FALSE(is_demoted("bert", others));
  EXPECT_TRUE(is_demoted("anna", first));
  EXPECT_FALSE(is_demoted("anna", second));
  EXPECT_FALSE(is_demoted("anna", third));
  EXPECT_EQ(store.PayerFigures(LimitScope::kPrincipal, {"anna"}).bytes,
            10 + 150 + 200);
}

TEST_F(TapeStoreTest, DemotesOnlyASessionsOwnOverItsPart) {
  TapeStore store({.max_bytes = 1000, .quotas = {.session = 0.4}});
  const auto put = [&](const std::string& session, int64_t bytes) {
    Tape tape = MakeReplayable(bytes);
    tape.session = session;
    return *Put(store, std::move(tape));
  };
  put("other", 390);  // The oldest and largest.
  put("mine", 200);
  put("mine", 250);
  EXPECT_EQ(store.PayerFigures(LimitScope::kSession, {"local", "other"}).bytes,
            390);
  EXPECT_EQ(store.PayerFigures(LimitScope::kSession, {"local", "mine"}).bytes,
            10 + 250);
}

TEST_F(TapeStoreTest, DemotesOfWhoHoldsMostOverTheLimitOfAll) {
  const auto put = [&](const std::string& principal, int64_t bytes) {
    Tape tape = MakeReplayable(bytes);
    tape.principal = principal;
    return *Put(std::move(tape));
  };
  const std::string small = put("bert", 100);  // The oldest of all.
  const std::string large = put("anna", 800);
  ASSERT_THAT(put("bert", 200), MatchesRegex("[0-9a-f]{32}"));
  EXPECT_NE(store_.Lease({small}, "uid", "bert", At(0))->tapes()[0]->graph,
            nullptr);
  EXPECT_EQ(store_.Lease({large}, "uid", "anna", At(0))->tapes()[0]->graph,
            nullptr);
}

// R11
TEST_F(TapeStoreTest, DemotesOfTheLargestSessionOfThePrincipalThatHoldsMost) {
  TapeStore store({.max_count = 9, .max_bytes = 1000});
  const auto put = [&](const std::string& session, int64_t bytes) {
    Tape tape = MakeReplayable(bytes);
    tape.session = session;
    return *Put(store, std::move(tape));
  };
  const auto is_demoted = [&](const std::string& id) {
    return store.Lease({id}, "uid", "local", At(0))->tapes()[0]->graph ==
           nullptr;
  };
  const std::string modest = put("modest", 100);  // The oldest of all.
  const std::string large = put("large", 450);
  const std::string larger = put("larger", 440);
  const std::string newest = put("larger", 40);
  EXPECT_TRUE(is_demoted(large));
  EXPECT_FALSE(is_demoted(larger));
  EXPECT_FALSE(is_demoted(modest));
  EXPECT_FALSE(is_demoted(newest));
}

TEST_F(TapeStoreTest, RefusesOverASessionsPartOfTheCount) {
  TapeStore store({.max_count = 4, .quotas = {.session = 0.5}});
  ASSERT_THAT(Put(store, MakeTape()), IsOk());
  ASSERT_THAT(Put(store, MakeTape()), IsOk());
  const absl::Status refused = store.Reserve(kPayer, At(0)).status();
  EXPECT_THAT(refused,
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("this session uses 2 of its 2 of max-tapes")));
  EXPECT_EQ(LimitOf(refused)->scope, LimitScope::kSession);
  EXPECT_THAT(store.Reserve({"local", "other"}, At(0)), IsOk());
}

TEST_F(TapeStoreTest, RefusesOverTheBytesOfAllThoughTheSessionHasRoom) {
  TapeStore store({.max_bytes = 1000, .quotas = {.session = 0.5}});
  const auto put = [&](const std::string& session, int64_t bytes) {
    Tape tape = MakeTape(bytes);
    tape.session = session;
    return Put(store, std::move(tape)).status();
  };
  ASSERT_THAT(put("a", 500), IsOk());
  ASSERT_THAT(put("b", 400), IsOk());
  EXPECT_EQ(LimitOf(put("c", 101))->scope, LimitScope::kServer);
  EXPECT_THAT(put("c", 100), IsOk());
}

TEST_F(TapeStoreTest, SparesLeasedTapesAndDemotesTheNewOne) {
  const std::string used = *Put(MakeReplayable(900));
  const auto lease = Lease({used});
  const std::string next = *Put(MakeReplayable(200));
  EXPECT_TRUE(IsDemoted(next));
  EXPECT_NE(lease->tapes()[0]->graph, nullptr);
  EXPECT_EQ(store_.TotalFigures().bytes, 910);
}

TEST_F(TapeStoreTest, RefusesWhenEvenDemotedTapesDoNotFit) {
  replay_->SetBytes(600);
  ASSERT_THAT(Put(MakeReplayable(700)), IsOk());
  const absl::Status refused = Put(MakeReplayable(800)).status();
  EXPECT_THAT(refused,
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("no room for a tape of 600 bytes: ")));
  EXPECT_EQ(LimitOf(refused)->name, "max-tape-bytes");
  EXPECT_EQ(store_.TotalFigures().count, 1);
}

TEST_F(TapeStoreTest, ReserveOverTheCountDemotesNothing) {
  const std::string id = *Put(MakeReplayable(1000));
  ASSERT_THAT(Put(MakeReplayable(10)), IsOk());
  ASSERT_THAT(Put(MakeReplayable(10)), IsOk());
  const int before = replay_->demotions();
  EXPECT_THAT(store_.Reserve(kPayer, At(0)),
              StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(replay_->demotions(), before);
}

TEST_F(TapeStoreTest, ReserveDemotesWhatFillsTheStore) {
  const std::string id = *Put(MakeReplayable(1000));
  EXPECT_THAT(store_.Reserve(kPayer, At(0)), IsOk());
  EXPECT_TRUE(IsDemoted(id));
}

TEST_F(TapeStoreTest, ReserveDemotesNothingWhileAByteIsFree) {
  const std::string id = *Put(MakeReplayable(999));
  EXPECT_THAT(store_.Reserve(kPayer, At(0)), IsOk());
  EXPECT_FALSE(IsDemoted(id));
}

TEST_F(TapeStoreTest, CountsAnewWhatDemotedTapesKeep) {
  ASSERT_THAT(Put(MakeReplayable(5000)), IsOk());
  replay_->SetBytes(500);  // The instance has a newer version.
  ASSERT_THAT(Put(MakeReplayable(995)), IsOk());
  EXPECT_EQ(store_.TotalFigures().bytes, 1000);
  EXPECT_EQ(replay_->demotions(), 2);  // Each of them once.
}

TEST_F(TapeStoreTest, LeasedTapeStillCounts) {
  const std::string id = *Put(MakeTape(1000));
  const auto lease = Lease({id});
  EXPECT_EQ(store_.Release({id}, "local"), 1);
  EXPECT_EQ(store_.TotalFigures().bytes, 1000);
}

TEST_F(TapeStoreTest, ReleaseCountsWhatItDropped) {
  const std::string id = *Put(MakeTape());
  ASSERT_THAT(Put(MakeTape()), IsOk());
  EXPECT_EQ(store_.Release({id, "gone"}, "local"), 1);
  EXPECT_EQ(store_.Release({id}, "local"), 0);
  EXPECT_EQ(destroyed_, 1);
}

TEST_F(TapeStoreTest, LeasedTapeIsDroppedAtTheEndOfItsLease) {
  const std::string id = *Put(MakeTape());
  {
    const auto lease = Lease({id});
    EXPECT_EQ(store_.DropInstance("uid"), 1);
    EXPECT_EQ(store_.DropInstance("uid"), 0);
    EXPECT_EQ(destroyed_, 0);
    EXPECT_THAT(Lease({id}), NotFound("is unknown"));
  }
  EXPECT_EQ(destroyed_, 1);
  EXPECT_EQ(store_.TotalFigures().count, 0);
}

TEST_F(TapeStoreTest, DropsTapesOfAnInstance) {
  Tape other = MakeTape();
  other.instance_uid = "other";
  ASSERT_THAT(Put(MakeTape()), IsOk());
  ASSERT_THAT(Put(std::move(other)), IsOk());
  EXPECT_EQ(store_.DropInstance("uid"), 1);
  EXPECT_EQ(store_.InstanceFigures("other").count, 1);
}

TEST_F(TapeStoreTest, DropsTapesOfASessionOfOnePrincipal) {
  Tape other = MakeTape();
  other.principal = "bob";
  ASSERT_THAT(Put(MakeTape()), IsOk());
  ASSERT_THAT(Put(std::move(other)), IsOk());
  EXPECT_EQ(store_.DropSession("other", "local", At(0)), 0);
  EXPECT_EQ(store_.DropSession("session", "local", At(0)), 1);
  EXPECT_EQ(store_.TotalFigures().count, 1);
}

TEST_F(TapeStoreTest, ASessionsEndSparesTapesThatWereUsedLater) {
  ASSERT_THAT(Put(MakeTape(), At(10)), IsOk());
  EXPECT_EQ(store_.DropSession("session", "local", At(9)), 0);
  EXPECT_EQ(store_.DropSession("session", "local", At(10)), 1);
}

TEST_F(TapeStoreTest, GivesTheTapesOfAnInstance) {
  Tape other = MakeTape();
  other.instance_uid = "other";
  const std::string id = *Put(MakeTape());
  ASSERT_THAT(Put(std::move(other)), IsOk());
  ASSERT_THAT(store_.OfInstance("uid"), SizeIs(1));
  EXPECT_EQ(store_.OfInstance("uid")[0]->id, id);
}

TEST_F(TapeStoreTest, ExpiresAfterTheTtl) {
  const std::string id = *Put(MakeTape(), At(0));
  EXPECT_EQ(store_.DropExpired(At(59)), 0);
  EXPECT_THAT(Lease({id}, At(60)), NotFound("expired"));
  EXPECT_EQ(store_.DropExpired(At(60)), 1);
  EXPECT_EQ(destroyed_, 1);
}

TEST_F(TapeStoreTest, LeaseStartsTheTtlAnewAndHoldsItOff) {
  const std::string id = *Put(MakeTape(), At(0));
  {
    const auto lease = Lease({id}, At(50));
    EXPECT_EQ(store_.DropExpired(At(500)), 0);
    EXPECT_THAT(Lease({id}, At(500)), NotFound("is in use"));
  }
  EXPECT_EQ(store_.DropExpired(At(109)), 0);
  EXPECT_EQ(store_.DropExpired(At(110)), 1);
}

TEST_F(TapeStoreTest, ReserveMakesRoomByDroppingTheExpired) {
  for (int i = 0; i < 3; ++i) ASSERT_THAT(Put(MakeTape()), IsOk());
  EXPECT_THAT(store_.Reserve(kPayer, At(60)), IsOk());
  EXPECT_EQ(destroyed_, 3);
}

TEST_F(TapeStoreTest, FiguresFollowEachInstance) {
  ASSERT_THAT(Put(MakeTape(100)), IsOk());
  ASSERT_THAT(Put(MakeTape(50)), IsOk());
  EXPECT_EQ(store_.InstanceFigures("uid").count, 2);
  EXPECT_EQ(store_.InstanceFigures("uid").bytes, 150);
  EXPECT_EQ(store_.InstanceFigures("none").count, 0);
  EXPECT_EQ(store_.TotalFigures().bytes, 150);
}

TEST_F(TapeStoreTest, DestroysGraphsOutsideItsLock) {
  int64_t seen = -1;
  Tape tape = MakeTape();
  tape.graph = FakeGraph([this, &seen] { seen = store_.TotalFigures().count; });
  Tape refused = MakeTape(2000);
  refused.graph = tape.graph;
  ASSERT_THAT(Put(std::move(tape)), IsOk());
  ASSERT_THAT(Put(MakeTape()), IsOk());
  EXPECT_EQ(Put(std::move(refused)).ok(), false);
  EXPECT_EQ(store_.DropInstance("uid"), 2);
  EXPECT_EQ(seen, 0);  // The destructor could call the store.
}

TEST_F(TapeStoreTest, OneOfTwoConcurrentLeasesWins) {
  const std::string id = *Put(MakeTape());
  absl::Notification leased;
  absl::Notification refused;
  std::thread winner([&] {
    absl::StatusOr<TapeLease> lease = Lease({id});
    ASSERT_THAT(lease, IsOk());
    leased.Notify();
    refused.WaitForNotification();
    lease->Consume();
  });
  leased.WaitForNotification();
  EXPECT_THAT(Lease({id}), NotFound("is in use"));
  EXPECT_EQ(store_.Release({id}, "local"), 1);
  refused.Notify();
  winner.join();
  EXPECT_EQ(destroyed_, 1);
}

TEST(TapeStoreThreadsTest, FiguresAreZeroAfterManyThreads) {
  TapeStore store({.max_count = 8, .max_bytes = 1000});
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&store] {
      for (int round = 0; round < 500; ++round) {
        absl::StatusOr<TapeSlot> slot =
            store.Reserve({.principal = "p"}, At(0));
        if (!slot.ok()) continue;
        const absl::StatusOr<std::string> id =
            store.Put({.instance_uid = "uid", .principal = "p", .bytes = 200},
                      *std::move(slot), At(0));
        if (!id.ok()) continue;
        absl::StatusOr<TapeLease> lease = store.Lease({*id}, "uid", "p", At(0));
        if (round % 3 == 0) store.DropInstance("uid");
        if (lease.ok() && round % 2 == 0) lease->Consume();
        lease = TapeLease();
        store.Release({*id}, "p");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(store.TotalFigures().count, 0);
  EXPECT_EQ(store.TotalFigures().bytes, 0);
}

}  // namespace
}  // namespace backboned
