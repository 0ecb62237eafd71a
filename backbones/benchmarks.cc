#include "backbones/benchmarks.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "backbones/errors.h"
#include "backbones/names.h"

namespace backboned {
namespace {

// Completes a benchmark with what those of one kind share.
Benchmark Complete(Benchmark benchmark, const std::string& file) {
  benchmark.arguments = {{"num_classes", benchmark.num_classes}};
  benchmark.source = "Mammoth e75a491, datasets/" + file;
  return benchmark;
}

Benchmark OfMnist(Benchmark benchmark, const std::string& file) {
  benchmark.architecture = "mnistmlp";
  benchmark.input_shape = {1, 28, 28};
  benchmark.epochs = 1;
  return Complete(std::move(benchmark), file);
}

Benchmark OfColourImages(Benchmark benchmark, const std::string& file) {
  benchmark.setting = "class-il";
  benchmark.architecture = "resnet18";
  benchmark.batch_size = 32;
  benchmark.epochs = 50;
  return Complete(std::move(benchmark), file);
}

std::vector<Benchmark> MnistBenchmarks() {
  return {
      OfMnist({.name = "mnist-360",
               .setting = "general-continual",
               .num_classes = 9,
               .num_tasks = 1,
               .classes_per_task = {9},
               .batch_size = 16},
              "mnist_360.py"),
      OfMnist({.name = "perm-mnist",
               .setting = "domain-il",
               .num_classes = 10,
               .num_tasks = 20,
               .classes_per_task = {10},
               .batch_size = 128},
              "perm_mnist.py"),
      OfMnist({.name = "rot-mnist",
               .setting = "domain-il",
               .num_classes = 10,
               .num_tasks = 20,
               .classes_per_task = {10},
               .batch_size = 128},
              "rot_mnist.py"),
      OfMnist({.name = "seq-mnist",
               .setting = "class-il",
               .num_classes = 10,
               .num_tasks = 5,
               .classes_per_task = {2},
               .batch_size = 64},
              "seq_mnist.py"),
  };
}

std::vector<Benchmark> ColourImageBenchmarks() {
  return {
      OfColourImages({.name = "seq-cifar10",
                      .num_classes = 10,
                      .num_tasks = 5,
                      .classes_per_task = {2},
                      .input_shape = {3, 32, 32},
                      .mean = {0.4914, 0.4822, 0.4465},
                      .std = {0.2470, 0.2435, 0.2615}},
                     "seq_cifar10.py"),
      OfColourImages({.name = "seq-cifar100",
                      .num_classes = 100,
                      .num_tasks = 10,
                      .classes_per_task = {10},
                      .input_shape = {3, 32, 32},
                      .mean = {0.5071, 0.4867, 0.4408},
                      .std = {0.2675, 0.2565, 0.2761}},
                     "seq_cifar100.py"),
      OfColourImages({.name = "seq-tinyimg",
                      .num_classes = 200,
                      .num_tasks = 10,
                      .classes_per_task = {20},
                      .input_shape = {3, 64, 64},
                      .mean = {0.4802, 0.4480, 0.3975},
                      .std = {0.2770, 0.2691, 0.2821}},
                     "seq_tinyimagenet.py"),
      OfColourImages({.name = "seq-tinyimg-r",
                      .num_classes = 200,
                      .num_tasks = 10,
                      .classes_per_task = {20},
                      .input_shape = {3, 32, 32},
                      .mean = {0.4807, 0.4485, 0.3980},
                      .std = {0.2541, 0.2456, 0.2604}},
                     "seq_tinyimagenet_r.py"),
  };
}

std::vector<Benchmark> AllBenchmarks() {
  std::vector<Benchmark> all = MnistBenchmarks();
  std::ranges::move(ColourImageBenchmarks(), std::back_inserter(all));
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
