#include "server/compute/recording.h"

#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backbones/architectures.h"
#include "server/device/device_worker.h"
#include "tests/backbones/tensors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

class RecordingTest : public ::testing::Test {
 protected:
  // Returns the key of a forward of a small transformer.
  std::string Key(const ForwardOptions& options = {},
                  Precision precision = Precision::kDefault,
                  double mlp_ratio = 2.0) {
    std::shared_ptr<const Architecture> architecture = Vit(mlp_ratio);
    const Instance instance({.name = "net", .precision = precision},
                            architecture, worker_, Seeded(*architecture));
    return Recording(instance, *instance.state(), options,
                     Inputs(at::ones({1, 3, 32, 32})))
        .Key();
  }

  static std::shared_ptr<const Architecture> Vit(double mlp_ratio) {
    return BuildArchitecture("vit", {{"num_classes", int64_t{10}},
                                     {"img_size", int64_t{32}},
                                     {"embed_dim", int64_t{8}},
                                     {"depth", int64_t{1}},
                                     {"num_heads", int64_t{1}},
                                     {"mlp_ratio", mlp_ratio}})
        .value();
  }

  DeviceWorker worker_{
      c10::Device(c10::DeviceType::CPU), /*threads=*/1, {.max_queued = 1}};
};

TEST_F(RecordingTest, EqualForwardsHaveOneKey) {
  EXPECT_EQ(Key(), Key());
  EXPECT_EQ(Key({.sequence = 1}), Key({.sequence = 2}));
}

TEST_F(RecordingTest, KeysDifferInAllThatChangesAForward) {
  std::vector<std::string> keys = {Key()};
  for (const ForwardOptions& options : std::vector<ForwardOptions>{
           {.outputs = {"features"}},
           {.outputs = {"out", "features"}},
           {.training = true},
           {.prerelu = true},
           {.autocast = true},
           {.record = true},
           {.record = true, .grad_mask = {true, false}},
           {.record = true, .grad_mask = {false, true}},
           {.batch_norm = {{.training = true}}},
           {.batch_norm = {{.track_running_stats = true}}},
           {.batch_norm = {{.eps = 1.0}}},
           {.batch_norm = {{.momentum = 1.0}}},
           {.batch_norm = {{.momentum = std::nextafter(1.0, 2.0)}}}}) {
    keys.push_back(Key(options));
  }
  keys.push_back(Key({}, Precision::kHighest));
  keys.push_back(Key({}, Precision::kDefault, std::nextafter(2.0, 3.0)));
  for (size_t i = 0; i < keys.size(); ++i) {
    for (size_t j = 0; j < i; ++j) EXPECT_NE(keys[i], keys[j]) << i << " " << j;
  }
}

}  // namespace
}  // namespace backboned
