// Makes instances with weights from the operator's folder.

#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/errors.h"
#include "base/task.h"
#include "server/server.h"
#include "tests/backbones/safetensors_files.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class WeightsFolderTest : public ::testing::Test {
 protected:
  WeightsFolderTest()
      : folder_(MakeFolder()),
        server_({c10::Device(c10::DeviceType::CPU)}, /*threads=*/1, {},
                WeightsFolder::Open(folder_.string()).value()) {}
  ~WeightsFolderTest() override { fs::remove_all(folder_); }

  static fs::path MakeFolder() {
    std::string path = (fs::temp_directory_path() / "weights-XXXXXX").string();
    EXPECT_NE(mkdtemp(path.data()), nullptr);
    return path;
  }

  static Loaded Load(const std::string& weights, bool partial = false) {
    return {.weights = {.name = weights, .load = {.partial = partial}},
            .rest = {.seed = 0}};
  }

  static CreateOptions Mlp(const std::string& weights) {
    CreateOptions options = {.name = "a",
                             .owner = "local",
                             .architecture = "mnistmlp",
                             .arguments = {{"num_classes", int64_t{3}},
                                           {"mlp_hidden_size", int64_t{4}}},
                             .beginning = Drawn{.seed = 0}};
    if (!weights.empty()) options.beginning = Load(weights);
    return options;
  }

  // Returns the parameters of Mlp's instance, all `value`.
  static NamedTensors Tensors(double value) {
    NamedTensors tensors;
    const std::vector<std::pair<std::string, std::vector<int64_t>>> shapes = {
        {"fc1.weight", {4, 784}},      {"fc1.bias", {4}},
        {"fc2.weight", {4, 4}},        {"fc2.bias", {4}},
        {"classifier.weight", {3, 4}}, {"classifier.bias", {3}}};
    for (const auto& [name, shape] : shapes) {
      tensors.emplace_back(name, at::full(shape, value, at::kFloat));
    }
    return tensors;
  }

  void Put(const std::string& file, const std::string& bytes) const {
    std::ofstream(folder_ / file, std::ios::binary) << bytes;
  }

  void ExpectRefused(const CreateOptions& options, absl::StatusCode code,
                     Reason reason,
                     const ::testing::Matcher<const std::string&>& message) {
    const absl::Status status =
        BlockOn(server_.CreateInstance(options)).status();
    EXPECT_THAT(status, StatusIs(code, message));
    EXPECT_EQ(ReasonOf(status), reason);
    EXPECT_THAT(server_.registry().List(), IsEmpty());
  }

  fs::path folder_;
  Server server_;
};

TEST_F(WeightsFolderTest, LoadsAFileAndSaysWhich) {
  const std::string bytes = SafetensorsOf(Tensors(0.5));
  Put("half.safetensors", bytes);
  const auto created = BlockOn(server_.CreateInstance(Mlp("half")));
  ASSERT_THAT(created, IsOk());
  for (const at::Tensor& parameter : created->instance->state()->params) {
    EXPECT_EQ(parameter.min().item<float>(), 0.5F);
    EXPECT_EQ(parameter.max().item<float>(), 0.5F);
  }
  EXPECT_EQ(created->instance->identity().weights, "half");
  EXPECT_EQ(created->instance->identity().weights_sha256,
            absl::BytesToHexString(TextDigest(bytes)));
  EXPECT_THAT(created->missing_keys, IsEmpty());
}

TEST_F(WeightsFolderTest, LoadsATrunkOverWhatIsDrawn) {
  NamedTensors trunk = Tensors(1);
  trunk.resize(4);
  trunk.emplace_back("head.weight", at::full({2}, 1, at::kFloat));
  Put("trunk.safetensors", SafetensorsOf(trunk));
  CreateOptions options = Mlp("trunk");
  ExpectRefused(options, absl::StatusCode::kInvalidArgument,
                Reason::kInvalidOption,
                AllOf(HasSubstr("weights \"trunk\": 3 keys do not fit"),
                      HasSubstr("\"classifier.weight\" is missing"),
                      HasSubstr("\"head.weight\" is unexpected")));
  options.beginning = Load("trunk", /*partial=*/true);
  const auto created = BlockOn(server_.CreateInstance(options));
  ASSERT_THAT(created, IsOk());
  EXPECT_THAT(created->missing_keys,
              ElementsAre("classifier.weight", "classifier.bias"));
  EXPECT_THAT(created->unexpected_keys, ElementsAre("head.weight"));
  CreateOptions plain = Mlp("");
  plain.name = "drawn";
  const StatePtr drawn =
      BlockOn(server_.CreateInstance(plain))->instance->state();
  const StatePtr state = created->instance->state();
  EXPECT_TRUE(state->params[4].equal(drawn->params[4]));
  EXPECT_FALSE(state->params[2].equal(drawn->params[2]));
  EXPECT_EQ(state->rng_state, drawn->rng_state);
}

TEST_F(WeightsFolderTest, ListsWhatThereIsForUnknownNames) {
  Put("resnet50-imagenet.safetensors", "");
  Put("Capital.safetensors", "");
  Put("notes.txt", "");
  ExpectRefused(Mlp("resnet50-imagnet"), absl::StatusCode::kNotFound,
                Reason::kWeightsNotFound,
                AllOf(HasSubstr("did you mean resnet50-imagenet?"),
                      HasSubstr("valid weights files: resnet50-imagenet")));
  fs::remove(folder_ / "resnet50-imagenet.safetensors");
  ExpectRefused(Mlp("x"), absl::StatusCode::kNotFound, Reason::kWeightsNotFound,
                HasSubstr("--weights-dir is empty"));
  Server without({c10::Device(c10::DeviceType::CPU)}, /*threads=*/1, {});
  EXPECT_THAT(
      BlockOn(without.CreateInstance(Mlp("x"))),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("--weights-dir")));
}

TEST_F(WeightsFolderTest, TakesNoPathForAName) {
  Put("a.safetensors", SafetensorsOf(Tensors(1)));
  const std::string with_nul("a\0b", 3);
  for (const std::string& name :
       {std::string("../a"), std::string("/a"), std::string("./a"),
        std::string("a/"), std::string(".."), std::string("A"), with_nul}) {
    ExpectRefused(Mlp(name), absl::StatusCode::kInvalidArgument,
                  Reason::kInvalidOption, HasSubstr("does not match"));
  }
  CreateOptions options = Mlp("");
  options.beginning = Load("");
  ExpectRefused(options, absl::StatusCode::kInvalidArgument,
                Reason::kInvalidOption, HasSubstr("does not match"));
}

TEST_F(WeightsFolderTest, RefusesWhatIsNoSoundFile) {
  Put("cut.safetensors", SafetensorsOf(Tensors(1)).substr(0, 1000));
  ExpectRefused(Mlp("cut"), absl::StatusCode::kFailedPrecondition,
                Reason::kWeightsUnreadable, HasSubstr("weights \"cut\": "));
  fs::create_directory(folder_ / "folder.safetensors");
  ExpectRefused(Mlp("folder"), absl::StatusCode::kFailedPrecondition,
                Reason::kWeightsUnreadable, HasSubstr("not a regular file"));
  ASSERT_EQ(mkfifo((folder_ / "pipe.safetensors").c_str(), 0600), 0);
  ExpectRefused(Mlp("pipe"), absl::StatusCode::kFailedPrecondition,
                Reason::kWeightsUnreadable, HasSubstr("not a regular file"));
  fs::create_symlink("nowhere", folder_ / "dangling.safetensors");
  ExpectRefused(Mlp("dangling"), absl::StatusCode::kFailedPrecondition,
                Reason::kWeightsUnreadable, HasSubstr("cannot be opened"));
}

TEST_F(WeightsFolderTest, RefusesWrongShapes) {
  NamedTensors tensors = Tensors(1);
  tensors[0].second = at::full({5, 784}, 1, at::kFloat);
  Put("wide.safetensors", SafetensorsOf(tensors));
  CreateOptions options = Mlp("wide");
  options.beginning = Load("wide", /*partial=*/true);
  ExpectRefused(options, absl::StatusCode::kInvalidArgument,
                Reason::kShapeMismatch,
                HasSubstr("\"fc1.weight\" is [5, 784], expected [4, 784]"));
}

TEST_F(WeightsFolderTest, DemandsWeightsWhereMammothLoadsSome) {
  CreateOptions options = {.name = "p",
                           .owner = "local",
                           .architecture = "resnet18-7x7-pt",
                           .arguments = {{"num_classes", int64_t{2}}},
                           .beginning = Drawn{.seed = 0}};
  ExpectRefused(options, absl::StatusCode::kFailedPrecondition,
                Reason::kWeightsRequired,
                HasSubstr("Mammoth uses resnet18-7x7-pt pretrained; give "
                          "weights, or set random_init"));
  options.random_init = true;
  EXPECT_THAT(BlockOn(server_.CreateInstance(options)), IsOk());
  options.random_init = false;
  options.exist_ok = true;
  EXPECT_THAT(BlockOn(server_.CreateInstance(options)), IsOk());
}

TEST_F(WeightsFolderTest, RefusesWeightsTogetherWithRandomInit) {
  CreateOptions options = Mlp("a");
  options.random_init = true;
  ExpectRefused(options, absl::StatusCode::kInvalidArgument,
                Reason::kInvalidOption,
                HasSubstr("either weights or random_init"));
}

TEST_F(WeightsFolderTest, TakesAnInstanceOfOtherWeightsForAnother) {
  Put("one.safetensors", SafetensorsOf(Tensors(1)));
  ASSERT_THAT(BlockOn(server_.CreateInstance(Mlp("one"))), IsOk());
  CreateOptions options = Mlp("one");
  options.exist_ok = true;
  EXPECT_TRUE(BlockOn(server_.CreateInstance(options))->existed);
  options.beginning = Load("two");
  EXPECT_THAT(BlockOn(server_.CreateInstance(options)),
              StatusIs(absl::StatusCode::kAlreadyExists,
                       HasSubstr("began with weights \"one\"")));
  options.beginning = Drawn{};
  EXPECT_TRUE(
      BlockOn(server_.CreateInstance(options))->existed);  // It says nothing.
  options.random_init = true;
  EXPECT_THAT(BlockOn(server_.CreateInstance(options)),
              StatusIs(absl::StatusCode::kAlreadyExists,
                       HasSubstr("began with weights \"one\"")));
}

TEST_F(WeightsFolderTest, OpensOnlyFolders) {
  Put("file", "");
  for (const char* name : {"file", "none"}) {
    EXPECT_THAT(WeightsFolder::Open((folder_ / name).string()),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("is no readable folder")));
  }
  EXPECT_THAT(WeightsFolder().Names(), IsOkAndHolds(SizeIs(0)));
}

}  // namespace
}  // namespace backboned
