#include "backbones/benchmarks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>

#include "backbones/architectures.h"
#include "base/errors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Optional;

TEST(BenchmarksTest, AreSorted) {
  EXPECT_TRUE(std::ranges::is_sorted(Benchmarks(), {}, &Benchmark::name));
}

TEST(BenchmarksTest, BuildNetworksThatTakeTheirInput) {
  for (const Benchmark& benchmark : Benchmarks()) {
    const auto network =
        BuildArchitecture(benchmark.architecture, benchmark.arguments);
    ASSERT_THAT(network, IsOk()) << benchmark.name;
    std::vector<int64_t> shape = benchmark.input_shape;
    shape.insert(shape.begin(), benchmark.batch_size);
    EXPECT_THAT((*network)->CheckInput(shape, true), IsOk()) << benchmark.name;
    EXPECT_EQ((*network)->layout().parameters().back().shape,
              std::vector<int64_t>{benchmark.num_classes});
  }
}

TEST(BenchmarksTest, AgreeWithThemselves) {
  for (const Benchmark& benchmark : Benchmarks()) {
    SCOPED_TRACE(benchmark.name);
    const std::vector<int64_t>& counts = benchmark.classes_per_task;
    if (counts.size() > 1) {
      EXPECT_EQ(static_cast<int64_t>(counts.size()), benchmark.num_tasks);
      EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), int64_t{0}),
                benchmark.num_classes);
    } else if (benchmark.setting.ends_with("class-il")) {
      EXPECT_THAT(counts,
                  ElementsAre(benchmark.num_classes / benchmark.num_tasks));
    }
    EXPECT_EQ(benchmark.mean.size(), benchmark.std.size());
    if (!benchmark.mean.empty()) {
      EXPECT_EQ(benchmark.mean.size(), 3);
      EXPECT_EQ(benchmark.input_shape[0], 3);
    }
    EXPECT_EQ(benchmark.epochs == 0, benchmark.name == "seq-8vision");
  }
}

TEST(BenchmarksTest, AreAllOfMammoths) { EXPECT_EQ(Benchmarks().size(), 29); }

TEST(FindBenchmarkTest, KnowsTasksOfDifferentSizes) {
  const auto found = FindBenchmark("seq-dtd");
  ASSERT_THAT(found, IsOk());
  EXPECT_EQ((*found)->architecture, "vit");
  EXPECT_EQ((*found)->num_classes, 47);
  EXPECT_THAT((*found)->classes_per_task, ElementsAre(10, 10, 10, 10, 7));
  EXPECT_THAT((*found)->mean, ElementsAre(0.48145466, 0.4578275, 0.40821073));
}

TEST(FindBenchmarkTest, KnowsSeqCifar10) {
  const auto found = FindBenchmark("seq-cifar10");
  ASSERT_THAT(found, IsOk());
  const Benchmark& benchmark = **found;
  EXPECT_EQ(benchmark.setting, "class-il");
  EXPECT_EQ(benchmark.architecture, "resnet18");
  EXPECT_EQ(benchmark.num_classes, 10);
  EXPECT_EQ(benchmark.num_tasks, 5);
  EXPECT_THAT(benchmark.input_shape, ElementsAre(3, 32, 32));
  EXPECT_THAT(benchmark.mean, ElementsAre(0.4914, 0.4822, 0.4465));
  EXPECT_THAT(benchmark.std, ElementsAre(0.2470, 0.2435, 0.2615));
  EXPECT_EQ(benchmark.batch_size, 32);
  EXPECT_EQ(benchmark.epochs, 50);
}

TEST(FindBenchmarkTest, KnowsThatDomainIlHasTheSameClassesInEachTask) {
  const auto found = FindBenchmark("rot-mnist");
  ASSERT_THAT(found, IsOk());
  EXPECT_EQ((*found)->num_classes, 10);
  EXPECT_EQ((*found)->num_tasks, 20);
  EXPECT_THAT((*found)->mean, IsEmpty());
}

TEST(FindBenchmarkTest, IgnoresCaseAndUnderscores) {
  EXPECT_THAT(FindBenchmark("SEQ_MNIST"), IsOk());
}

TEST(FindBenchmarkTest, AsksWhatATypoMeant) {
  const auto found = FindBenchmark("seq-nmist");
  EXPECT_THAT(
      found,
      StatusIs(absl::StatusCode::kNotFound,
               AllOf(HasSubstr("no benchmark \"seq-nmist\"; did you mean "
                               "seq-mnist? valid benchmarks: mnist-360, "),
                     HasSubstr("seq-tinyimg, seq-tinyimg-r"))));
  EXPECT_THAT(ReasonOf(found.status()), Optional(Reason::kBenchmarkNotFound));
}

TEST(FindBenchmarkTest, ProposesNothingForAnotherWord) {
  EXPECT_THAT(FindBenchmark("imagenet"),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("\"imagenet\"; valid benchmarks: "),
                             Not(HasSubstr("did you mean")))));
}

}  // namespace
}  // namespace backboned
