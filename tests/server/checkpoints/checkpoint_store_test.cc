#include "server/checkpoints/checkpoint_store.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "backbones/architectures.h"
#include "backbones/optimizer.h"
#include "base/errors.h"
#include "base/task.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

namespace fs = std::filesystem;

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::shared_ptr<const Architecture> Mlp() {
  return *BuildArchitecture(
      "mnistmlp",
      {{"num_classes", int64_t{3}}, {"mlp_hidden_size", int64_t{4}}}, 0);
}

// Returns a state of `architecture` all of whose tensors have random values.
State RandomState(const Architecture& architecture, OptimizerKind kind) {
  const Layout& layout = architecture.layout();
  State state;
  state.rng_state = GeneratorState(SeededGenerator(7));
  for (const Parameter& parameter : layout.parameters()) {
    state.params.push_back(at::rand(parameter.shape));
    state.grads.push_back(at::rand(parameter.shape));
  }
  for (const Buffer& buffer : layout.buffers()) {
    state.buffers.push_back(at::rand(buffer.shape).to(buffer.dtype));
  }
  state.grads.front() = at::Tensor();  // There is none.
  OptimizerState optimizer = **MakeOptimizer(kind, {ParameterGroup()}, layout);
  for (size_t p = 1; p < optimizer.slots.size(); ++p) {
    for (const std::string_view slot :
         SlotNames(kind, optimizer.groups.front())) {
      optimizer.slots[p].push_back(slot == kStepSlot
                                       ? at::full({}, 5.0F)
                                       : at::rand(state.params[p].sizes()));
    }
  }
  state.optimizer = std::make_shared<const OptimizerState>(optimizer);
  return state;
}

void ExpectEqual(const std::vector<at::Tensor>& one,
                 const std::vector<at::Tensor>& other) {
  ASSERT_EQ(one.size(), other.size());
  for (size_t i = 0; i < one.size(); ++i) {
    ASSERT_EQ(one[i].defined(), other[i].defined()) << i;
    if (!one[i].defined()) continue;
    EXPECT_EQ(one[i].scalar_type(), other[i].scalar_type()) << i;
    EXPECT_TRUE(at::equal(one[i], other[i])) << i;
  }
}

void ExpectEqual(const State& one, const State& other) {
  ExpectEqual(one.params, other.params);
  ExpectEqual(one.buffers, other.buffers);
  ExpectEqual(one.shared, other.shared);
  ExpectEqual(one.grads, other.grads);
  EXPECT_EQ(one.rng_state, other.rng_state);
  ASSERT_EQ(one.optimizer == nullptr, other.optimizer == nullptr);
  if (one.optimizer == nullptr) return;
  for (size_t p = 0; p < one.optimizer->slots.size(); ++p) {
    ExpectEqual(one.optimizer->slots[p], other.optimizer->slots[p]);
  }
}

class CheckpointStoreTest : public ::testing::Test {
 protected:
  CheckpointStoreTest() : path_(::testing::TempDir() + "store.XXXXXX") {
    EXPECT_NE(mkdtemp(path_.data()), nullptr);
    Open();
  }
  ~CheckpointStoreTest() override {
    store_.reset();
    fs::remove_all(path_);
  }

  // Ends the store, as the end of a server does, and opens its folder.
  void Open() {
    store_.reset();
    absl::StatusOr<std::unique_ptr<CheckpointStore>> store =
        CheckpointStore::Open(path_, options_);
    ASSERT_THAT(store.status(), IsOk());
    store_ = *std::move(store);
  }

  absl::StatusOr<v1::Checkpoint> Save(const std::string& owner,
                                      const std::string& name,
                                      const State& state, int keep = 1,
                                      bool recovery = false) {
    v1::Record record;
    record.mutable_checkpoint()->set_owner(owner);
    record.mutable_checkpoint()->set_name(name);
    record.set_recovery(recovery);
    record.mutable_checkpoint()->mutable_instance()->mutable_version()->set_uid(
        owner);
    return BlockOn(store_->Save({.principal = owner}, std::move(record),
                                TensorsToSave(state, mlp_->layout()), keep));
  }

  absl::StatusOr<State> Load(const std::string& owner, const std::string& name,
                             const OptimizerPtr& optimizer) {
    absl::StatusOr<CheckpointStore::Found> found = store_->Find(owner, name, 0);
    if (!found.ok()) return found.status();
    std::vector<StateReader::File> files;
    for (const v1::CheckpointFile& file : found->record.files()) {
      files.push_back({file.sha256(), file.bytes()});
    }
    StateReader reader(store_->folder(), files, mlp_->layout(), at::kFloat,
                       optimizer);
    while (true) {
      const absl::StatusOr<bool> more = reader.ReadNext();
      if (!more.ok()) return more.status();
      if (!*more) return reader.Take();
    }
  }

  absl::Status Delete(const std::string& owner, const std::string& name,
                      int64_t number = 0) {
    return BlockOn(store_->Delete({.principal = owner}, owner, name, number));
  }

  // Returns owner, name and number of all that people named.
  std::vector<std::string> All(std::optional<std::string> owner = {}) const {
    std::vector<std::string> all;
    for (const v1::Checkpoint& one : store_->List(owner)) {
      all.push_back(one.owner() + "/" + one.name() + "/" +
                    std::to_string(one.number()));
    }
    return all;
  }

  std::vector<fs::path> Blobs() const {
    std::vector<fs::path> blobs;
    for (const auto& entry : fs::directory_iterator(path_ + "/blobs")) {
      blobs.push_back(entry.path());
    }
    return blobs;
  }

  // Returns an optimizer without state, as a record describes it.
  OptimizerPtr Stateless(OptimizerKind kind) const {
    return *MakeOptimizer(kind, {ParameterGroup()}, mlp_->layout());
  }

  const std::shared_ptr<const Architecture> mlp_ = Mlp();
  const State state_ = RandomState(*mlp_, OptimizerKind::kAdam);
  CheckpointStore::Options options_;
  std::string path_;
  std::unique_ptr<CheckpointStore> store_;
};

TEST_F(CheckpointStoreTest, GivesBackWhatItWasGiven) {
  for (const OptimizerKind kind :
       {OptimizerKind::kSgd, OptimizerKind::kAdamW}) {
    const State state = RandomState(*mlp_, kind);
    ASSERT_THAT(Save("ada", "best", state).status(), IsOk());
    Open();
    absl::StatusOr<State> loaded = Load("ada", "best", Stateless(kind));
    ASSERT_THAT(loaded.status(), IsOk());
    ExpectEqual(*loaded, state);
  }
}

TEST_F(CheckpointStoreTest, GivesBackAStateWithoutOptimizer) {
  State state = state_;
  state.optimizer = nullptr;
  ASSERT_THAT(Save("ada", "best", state).status(), IsOk());
  absl::StatusOr<State> loaded = Load("ada", "best", nullptr);
  ASSERT_THAT(loaded.status(), IsOk());
  ExpectEqual(*loaded, state);
}

TEST_F(CheckpointStoreTest, KeepsTheNewestOfAName) {
  for (int i = 0; i < 4; ++i) {
    ASSERT_THAT(Save("ada", "best", state_, /*keep=*/2).status(), IsOk());
  }
  ASSERT_THAT(Save("ada", "other", state_).status(), IsOk());
  ASSERT_THAT(Save("ben", "best", state_).status(), IsOk());
  const auto expected =
      ElementsAre("ada/best/3", "ada/best/4", "ada/other/5", "ben/best/6");
  EXPECT_THAT(All(), expected);
  Open();
  EXPECT_THAT(All(), expected);
  EXPECT_THAT(All("ben"), ElementsAre("ben/best/6"));
  EXPECT_EQ(store_->Find("ada", "best", 0)->record.checkpoint().number(), 4);
  EXPECT_EQ(store_->Find("ada", "best", 3)->record.checkpoint().number(), 3);
}

TEST_F(CheckpointStoreTest, SharesFilesOfEqualTensors) {
  ASSERT_THAT(Save("ada", "best", state_).status(), IsOk());
  const size_t count = Blobs().size();
  ASSERT_THAT(Save("ben", "mine", state_).status(), IsOk());
  EXPECT_THAT(Blobs(), SizeIs(count));
  State other = state_;
  other.params.back() = at::rand(other.params.back().sizes());
  ASSERT_THAT(Save("ben", "other", other).status(), IsOk());
  EXPECT_THAT(Blobs(), SizeIs(count + 1));  // The head's.

  EXPECT_THAT(Delete("ada", "best"), IsOk());
  EXPECT_THAT(Delete("ben", "other"), IsOk());
  EXPECT_THAT(Blobs(), SizeIs(count));
  absl::StatusOr<State> loaded =
      Load("ben", "mine", Stateless(OptimizerKind::kAdam));
  ASSERT_THAT(loaded.status(), IsOk());
  ExpectEqual(*loaded, state_);
  EXPECT_THAT(Delete("ben", "mine"), IsOk());
  EXPECT_THAT(Blobs(), IsEmpty());
}

TEST_F(CheckpointStoreTest, KeepsTheFilesOfWhatWasFound) {
  ASSERT_THAT(Save("ada", "best", state_).status(), IsOk());
  absl::StatusOr<CheckpointStore::Found> found = store_->Find("ada", "best", 0);
  ASSERT_THAT(found.status(), IsOk());
  EXPECT_THAT(Delete("ada", "best"), IsOk());
  EXPECT_THAT(All(), IsEmpty());
  EXPECT_THAT(Blobs(), SizeIs(found->record.files_size()));
  found->hold.reset();
  EXPECT_THAT(Blobs(), IsEmpty());
}

TEST_F(CheckpointStoreTest, NamesWhatIsThereIfOneIsNot) {
  ASSERT_THAT(Save("ada", "best", state_).status(), IsOk());
  const absl::Status absent = store_->Find("ada", "bets", 0).status();
  EXPECT_THAT(absent, StatusIs(absl::StatusCode::kNotFound,
                               HasSubstr("did you mean best")));
  EXPECT_EQ(ReasonOf(absent), Reason::kCheckpointNotFound);
  EXPECT_THAT(store_->Find("ada", "best", 9).status(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("number 9")));
  EXPECT_THAT(store_->Find("ben", "best", 0).status(),
              StatusIs(absl::StatusCode::kNotFound, Not(HasSubstr("ada"))));
  EXPECT_THAT(Delete("ben", "best"), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(CheckpointStoreTest, RefusesADamagedFileAndSetsItAside) {
  ASSERT_THAT(Save("ada", "best", state_).status(), IsOk());
  for (const fs::path& blob : Blobs()) {
    std::fstream file(blob, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end);
    file.put('\x55');
  }
  const OptimizerPtr adam = Stateless(OptimizerKind::kAdam);
  const absl::Status damaged = Load("ada", "best", adam).status();
  EXPECT_THAT(damaged, StatusIs(absl::StatusCode::kFailedPrecondition,
                                HasSubstr("a file of the checkpoint")));
  EXPECT_EQ(ReasonOf(damaged), Reason::kCheckpointUnreadable);
  EXPECT_FALSE(fs::is_empty(path_ + "/aside"));
  EXPECT_THAT(Load("ada", "best", adam).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("No such file")));
}

TEST_F(CheckpointStoreTest, RefusesFilesOfAnotherNetwork) {
  ASSERT_THAT(Save("ada", "best", state_).status(), IsOk());
  const OptimizerPtr sgd = Stateless(OptimizerKind::kSgd);
  EXPECT_THAT(Load("ada", "best", sgd).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("the network has no tensor")));
}

TEST_F(CheckpointStoreTest, RefusesWhatHasNoRoomAndLeavesTheOldOne) {
  const int64_t bytes = Save("ada", "best", state_)->bytes();
  options_ = {.max_bytes = 3 * bytes, .quotas = {.principal = 0.5}};
  Open();
  EXPECT_EQ(store_->room().used(), bytes);
  // The old one goes once the new one is there.
  const absl::Status refused = Save("ada", "best", state_).status();
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted,
                                HasSubstr("max-checkpoint-bytes")));
  EXPECT_THAT(Save("ben", "best", state_).status(), IsOk());
  EXPECT_THAT(All(), ElementsAre("ada/best/1", "ben/best/2"));
  EXPECT_THAT(Delete("ada", "best"), IsOk());
  EXPECT_THAT(Save("ada", "best", state_).status(), IsOk());
}

TEST_F(CheckpointStoreTest, LeavesNothingOfOneThatFailed) {
  fs::remove_all(path_ + "/records");
  EXPECT_THAT(Save("ada", "best", state_).status(),
              StatusIs(absl::StatusCode::kInternal));
  EXPECT_THAT(Blobs(), IsEmpty());
  EXPECT_THAT(All(), IsEmpty());
  EXPECT_EQ(store_->room().used(), 0);
}

TEST_F(CheckpointStoreTest, SetsRecordsOfANewerServerAside) {
  ASSERT_THAT(
      store_->folder().WriteRecord(R"({"format": 2, "tricks": [1]})").status(),
      IsOk());
  ASSERT_THAT(store_->folder().WriteRecord("not JSON").status(), IsOk());
  ASSERT_THAT(Save("ada", "best", state_).status(), IsOk());
  Open();
  EXPECT_THAT(All(), ElementsAre("ada/best/1"));
  EXPECT_EQ(std::distance(fs::directory_iterator(path_ + "/aside"), {}), 2);
}

TEST_F(CheckpointStoreTest, KeepsRecordsOfLivingInstancesApart) {
  ASSERT_THAT(Save("ada", "net", state_).status(), IsOk());
  ASSERT_THAT(Save("ada", "net", state_, 1, /*recovery=*/true).status(),
              IsOk());
  Open();
  EXPECT_THAT(All(), ElementsAre("ada/net/1"));
  ASSERT_THAT(store_->Living(), SizeIs(1));
  EXPECT_EQ(store_->Living().front().checkpoint().number(), 2);
  EXPECT_THAT(Delete("ada", "net"), IsOk());
  EXPECT_THAT(store_->Living(), SizeIs(1));
  EXPECT_THAT(BlockOn(store_->DeleteLiving({}, "ada")), IsOk());
  EXPECT_THAT(store_->Living(), IsEmpty());
  EXPECT_THAT(Blobs(), IsEmpty());
}

TEST_F(CheckpointStoreTest, DropsWhatIsOld) {
  ASSERT_THAT(Save("ada", "old", state_).status(), IsOk());
  const absl::Time between = absl::Now();
  ASSERT_THAT(Save("ada", "new", state_).status(), IsOk());
  ASSERT_THAT(Save("ada", "net", state_, 1, /*recovery=*/true).status(),
              IsOk());
  EXPECT_THAT(store_->DropOlderThan(between), IsOk());
  EXPECT_THAT(All(), ElementsAre("ada/new/2"));
  EXPECT_THAT(store_->Living(), SizeIs(1));
}

// A caller who has gone leaves nothing.
TEST_F(CheckpointStoreTest, EndsWithItsCaller) {
  v1::Record record;
  record.mutable_checkpoint()->set_name("best");
  std::stop_source gone;
  gone.request_stop();
  EXPECT_THAT(BlockOn(store_->Save({.stop = gone.get_token()}, record,
                                   TensorsToSave(state_, mlp_->layout()), 1))
                  .status(),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(Blobs(), IsEmpty());
}

TEST(CutFilesTest, CutsByPartAndSize) {
  const at::Tensor large = at::full({kFileBytes / 4}, 1.0F);
  using Part = SavedTensor::Part;
  const std::vector<std::vector<SavedTensor>> files =
      CutFiles({{"a", large, Part::kTrunk},
                {"b", at::full({1}, 1.0F), Part::kTrunk},
                {"c", at::full({1}, 1.0F), Part::kTrunk},
                {"d", at::full({1}, 1.0F), Part::kHead}});
  std::vector<std::string> names;
  for (const auto& file : files) {
    std::string& all = names.emplace_back();
    for (const SavedTensor& tensor : file) all += tensor.name;
  }
  EXPECT_THAT(names, ElementsAre("a", "bc", "d"));
}

}  // namespace
}  // namespace backboned
