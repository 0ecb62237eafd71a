// The benchmarks: continual-learning datasets and settings, and the values that
// each fixes.
//
// Facts of Mammoth (github.com/aimagelab/mammoth, commit e75a491), with the
// arguments that its command line fills in.

#ifndef BACKBONED_BACKBONES_BENCHMARKS_H_
#define BACKBONED_BACKBONES_BENCHMARKS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "backbones/arguments.h"

namespace backboned {

struct Benchmark {
  // In the spelling of Mammoth's `--dataset`, e.g. `seq-cifar10`.
  std::string name = {};
  // `class-il`, `biased-class-il`, `domain-il`, `general-continual`.
  std::string setting = {};
  // The architecture and its arguments.
  std::string architecture = {};
  Arguments arguments = {};
  // K, the network's number of classes.
  int64_t num_classes = 0;
  int64_t num_tasks = 0;
  // A single value if all tasks have the same number.
  std::vector<int64_t> classes_per_task = {};
  // C H W.
  std::vector<int64_t> input_shape = {};
  // The normalisation of uint8 images after `x / 255`, by channel. Empty: none.
  std::vector<double> mean = {};
  std::vector<double> std = {};
  // Mammoth's defaults. 0 epochs: the number differs from task to task.
  int64_t batch_size = 0;
  int64_t epochs = 0;
  // The source of these facts.
  std::string source = {};
};

// Returns all benchmarks, by name. Safe from any thread.
const std::vector<Benchmark>& Benchmarks();

// Returns the benchmark `name`, in which `_` equals `-` and case does not
// matter.
//
// Returns kNotFound (kBenchmarkNotFound), which suggests a similar name and
// lists the valid ones.
absl::StatusOr<const Benchmark*> FindBenchmark(std::string_view name);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_BENCHMARKS_H_
