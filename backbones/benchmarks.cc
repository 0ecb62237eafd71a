#include "backbones/benchmarks.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <string>
#include <utility>

#include "base/errors.h"
#include "base/names.h"

namespace backboned {
namespace {

// The normalisation of images, by channel.
struct Statistics {
  std::array<double, 3> mean;
  std::array<double, 3> std;
};

constexpr Statistics kCifar10 = {{0.4914, 0.4822, 0.4465},
                                 {0.2470, 0.2435, 0.2615}};
constexpr Statistics kCifar100 = {{0.5071, 0.4867, 0.4408},
                                  {0.2675, 0.2565, 0.2761}};
constexpr Statistics kClip = {{0.48145466, 0.4578275, 0.40821073},
                              {0.26862954, 0.26130258, 0.27577711}};
constexpr Statistics kImageNet = {{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}};
constexpr Statistics kNone = {{0, 0, 0}, {1, 1, 1}};

// Fills in the fields of a benchmark that follow from the others.
Benchmark Complete(Benchmark benchmark, const std::string& file) {
  benchmark.arguments = {{"num_classes", benchmark.num_classes}};
  benchmark.source = "Mammoth e75a491, datasets/" + file + ".py";
  return benchmark;
}

Benchmark OfMnist(Benchmark benchmark, const std::string& file) {
  benchmark.architecture = "mnistmlp";
  benchmark.input_shape = {1, 28, 28};
  benchmark.epochs = 1;
  return Complete(std::move(benchmark), file);
}

// Returns a benchmark of colour images of `side` pixels, class-incremental
// unless it says otherwise.
Benchmark OfImages(int64_t side, Benchmark benchmark,
                   const Statistics& statistics, const std::string& file) {
  if (benchmark.setting.empty()) benchmark.setting = "class-il";
  benchmark.input_shape = {3, side, side};
  benchmark.mean.assign(statistics.mean.begin(), statistics.mean.end());
  benchmark.std.assign(statistics.std.begin(), statistics.std.end());
  return Complete(std::move(benchmark), file);
}

// Returns OfImages with a resnet18, in batches of 32 for 50 epochs.
Benchmark OfSmallImages(int64_t side, Benchmark benchmark,
                        const Statistics& statistics, const std::string& file) {
  benchmark.architecture = "resnet18";
  benchmark.batch_size = 32;
  benchmark.epochs = 50;
  return OfImages(side, std::move(benchmark), statistics, file);
}

// Returns OfImages with a vit and images of 224 pixels, in batches of 128
// unless the benchmark says otherwise.
Benchmark OfVit(Benchmark benchmark, const Statistics& statistics,
                const std::string& file) {
  benchmark.architecture = "vit";
  if (benchmark.batch_size == 0) benchmark.batch_size = 128;
  return OfImages(224, std::move(benchmark), statistics, file);
}

std::vector<Benchmark> MnistBenchmarks() {
  return {
      OfMnist({.name = "mnist-360",
               .setting = "general-continual",
               .num_classes = 9,
               .num_tasks = 1,
               .classes_per_task = {9},
               .batch_size = 16},
              "mnist_360"),
      OfMnist({.name = "perm-mnist",
               .setting = "domain-il",
               .num_classes = 10,
               .num_tasks = 20,
               .classes_per_task = {10},
               .batch_size = 128},
              "perm_mnist"),
      OfMnist({.name = "rot-mnist",
               .setting = "domain-il",
               .num_classes = 10,
               .num_tasks = 20,
               .classes_per_task = {10},
               .batch_size = 128},
              "rot_mnist"),
      OfMnist({.name = "seq-mnist",
               .setting = "class-il",
               .num_classes = 10,
               .num_tasks = 5,
               .classes_per_task = {2},
               .batch_size = 64},
              "seq_mnist"),
  };
}

std::vector<Benchmark> SmallImageBenchmarks() {
  return {
      OfSmallImages(32,
                    {.name = "seq-cifar10",
                     .num_classes = 10,
                     .num_tasks = 5,
                     .classes_per_task = {2}},
                    kCifar10, "seq_cifar10"),
      OfSmallImages(32,
                    {.name = "seq-cifar100",
                     .num_classes = 100,
                     .num_tasks = 10,
                     .classes_per_task = {10}},
                    kCifar100, "seq_cifar100"),
      OfSmallImages(64,
                    {.name = "seq-tinyimg",
                     .num_classes = 200,
                     .num_tasks = 10,
                     .classes_per_task = {20}},
                    {{0.4802, 0.4480, 0.3975}, {0.2770, 0.2691, 0.2821}},
                    "seq_tinyimagenet"),
      // The normalisation of Mammoth's data; the augmentation of its buffer
      // uses seq-tinyimg's values.
      OfSmallImages(32,
                    {.name = "seq-tinyimg-r",
                     .num_classes = 200,
                     .num_tasks = 10,
                     .classes_per_task = {20}},
                    {{0.4807, 0.4485, 0.3980}, {0.2541, 0.2456, 0.2604}},
                    "seq_tinyimagenet_r"),
  };
}

// Benchmarks with images of 224 pixels for residual networks.
std::vector<Benchmark> LargeImageBenchmarks() {
  return {
      OfImages(224,
               {.name = "seq-celeba",
                .setting = "biased-class-il",
                .architecture = "resnet18-7x7-pt",
                .num_classes = 8,
                .num_tasks = 8,
                .classes_per_task = {1},
                .batch_size = 64,
                .epochs = 25},
               kCifar10, "seq_celeba"),
      OfImages(224,
               {.name = "seq-cifar10-224-rs",
                .architecture = "resnet50",
                .num_classes = 10,
                .num_tasks = 5,
                .classes_per_task = {2},
                .batch_size = 32,
                .epochs = 50},
               kCifar10, "seq_cifar10_224_rs"),
      OfImages(224,
               {.name = "seq-cifar100-224-rs",
                .architecture = "resnet50",
                .num_classes = 100,
                .num_tasks = 10,
                .classes_per_task = {10},
                .batch_size = 32,
                .epochs = 50},
               kCifar100, "seq_cifar100_224_rs"),
      OfImages(224,
               {.name = "seq-cub200-rs",
                .architecture = "resnet50-pt",
                .num_classes = 200,
                .num_tasks = 10,
                .classes_per_task = {20},
                .batch_size = 16,
                .epochs = 30},
               {{0.4856, 0.4994, 0.4324}, {0.2272, 0.2226, 0.2613}},
               "seq_cub200_rs"),
  };
}

std::vector<Benchmark> VitBenchmarks() {
  return {
      OfVit({.name = "seq-8vision",
             .num_classes = 758,
             .num_tasks = 8,
             .classes_per_task = {196, 47, 10, 43, 10, 45, 397, 10},
             .batch_size = 32,
             .epochs = 0},
            kClip, "seq_8vision"),
      OfVit({.name = "seq-cars196",
             .num_classes = 196,
             .num_tasks = 10,
             .classes_per_task = {20, 20, 20, 20, 20, 20, 20, 20, 20, 16},
             .epochs = 50},
            kNone, "seq_cars196"),
      OfVit({.name = "seq-chestx",
             .num_classes = 6,
             .num_tasks = 2,
             .classes_per_task = {3},
             .epochs = 30},
            kImageNet, "seq_chestx"),
      OfVit({.name = "seq-cifar100-224",
             .num_classes = 100,
             .num_tasks = 10,
             .classes_per_task = {10},
             .epochs = 20},
            kImageNet, "seq_cifar100_224"),
      OfVit({.name = "seq-cifar10-224",
             .num_classes = 10,
             .num_tasks = 5,
             .classes_per_task = {2},
             .batch_size = 32,
             .epochs = 50},
            kCifar10, "seq_cifar10_224"),
      OfVit({.name = "seq-cropdisease",
             .num_classes = 35,
             .num_tasks = 7,
             .classes_per_task = {5},
             .epochs = 5},
            kImageNet, "seq_cropdisease"),
      OfVit({.name = "seq-cub200",
             .num_classes = 200,
             .num_tasks = 10,
             .classes_per_task = {20},
             .epochs = 50},
            kImageNet, "seq_cub200"),
      OfVit({.name = "seq-dtd",
             .num_classes = 47,
             .num_tasks = 5,
             .classes_per_task = {10, 10, 10, 10, 7},
             .epochs = 20},
            kClip, "seq_dtd"),
      OfVit({.name = "seq-eurosat-rgb",
             .num_classes = 10,
             .num_tasks = 5,
             .classes_per_task = {2},
             .epochs = 5},
            kClip, "seq_eurosat_rgb"),
  };
}

std::vector<Benchmark> MoreVitBenchmarks() {
  return {
      OfVit({.name = "seq-gtsrb",
             .num_classes = 43,
             .num_tasks = 5,
             .classes_per_task = {10, 10, 10, 10, 3},
             .epochs = 20},
            kClip, "seq_gtrsrb"),
      OfVit({.name = "seq-imagenet-r",
             .num_classes = 200,
             .num_tasks = 10,
             .classes_per_task = {20},
             .epochs = 50},
            kNone, "seq_imagenet_r"),
      OfVit({.name = "seq-isic",
             .num_classes = 6,
             .num_tasks = 3,
             .classes_per_task = {2},
             .epochs = 30},
            kImageNet, "seq_isic"),
      OfVit({.name = "seq-mit67",
             .num_classes = 67,
             .num_tasks = 10,
             .classes_per_task = {7, 7, 7, 7, 7, 7, 7, 6, 6, 6},
             .batch_size = 32,
             .epochs = 50},
            kImageNet, "seq_mit67"),
      OfVit({.name = "seq-mnist-224",
             .num_classes = 10,
             .num_tasks = 5,
             .classes_per_task = {2},
             .epochs = 20},
            kClip, "seq_mnist_224"),
      OfVit({.name = "seq-resisc45",
             .num_classes = 45,
             .num_tasks = 9,
             .classes_per_task = {5},
             .epochs = 30},
            kImageNet, "seq_resisc45"),
      OfVit({.name = "seq-sun397",
             .num_classes = 397,
             .num_tasks = 8,
             .classes_per_task = {50, 50, 50, 50, 50, 50, 50, 47},
             .epochs = 20},
            kClip, "seq_sun397"),
      OfVit({.name = "seq-svhn",
             .num_classes = 10,
             .num_tasks = 5,
             .classes_per_task = {2},
             .epochs = 20},
            kClip, "seq_svhn"),
  };
}

std::vector<Benchmark> AllBenchmarks() {
  std::vector<Benchmark> all;
  for (auto* family :
       {MnistBenchmarks, SmallImageBenchmarks, LargeImageBenchmarks,
        VitBenchmarks, MoreVitBenchmarks}) {
    std::ranges::move(family(), std::back_inserter(all));
  }
  std::ranges::sort(all, {}, &Benchmark::name);
  return all;
}

}  // namespace

const std::vector<Benchmark>& Benchmarks() {
  static const std::vector<Benchmark> benchmarks = AllBenchmarks();
  return benchmarks;
}

absl::StatusOr<const Benchmark*> FindBenchmark(std::string_view name) {
  const std::string canonical = CanonicalName(name);
  std::vector<std::string> valid;
  for (const Benchmark& benchmark : Benchmarks()) {
    if (benchmark.name == canonical) {
      return &benchmark;
    }
    valid.push_back(benchmark.name);
  }
  return UnknownName(Reason::kBenchmarkNotFound, "benchmark", name, valid);
}

}  // namespace backboned
