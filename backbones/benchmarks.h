// The benchmarks: continual-learning datasets and settings, and what each
// decides.
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
  // As Mammoth's `--dataset` spells it, e.g. `seq-cifar10`.
  std::string name = {};
  // `class-il`, `biased-class-il`, `domain-il`, `general-continual`.
  std::string setting = {};
  // The architecture and its arguments.
  std::string architecture = {};
  Arguments arguments = {};
  // K, the classes that the network tells apart.
  int64_t num_classes = 0;
  int64_t num_tasks = 0;
  // One value if all tasks have the same number.
  std::vector<int64_t> classes_per_task = {};
  // C H W.
  std::vector<int64_t> input_shape = {};
  // How uint8 images are normalised after `x / 255`, one value a channel.
  // Empty: not at all.
  std::vector<double> mean = {};
  std::vector<double> std = {};
  // Mammoth's defaults. 0 epochs: they differ from task to task.
  int64_t batch_size = 0;
  int64_t epochs = 0;
  // Where the facts come from.
  std::string source = {};
};

// All of them, by name. Safe from any thread.
const std::vector<Benchmark>& Benchmarks();

// Returns the benchmark `name`, in which `_` equals `-` and case does not
// count.
//
// Returns kNotFound (kBenchmarkNotFound) that names it, asks whether a similar
// one was meant, and lists the valid ones.
absl::StatusOr<const Benchmark*> FindBenchmark(std::string_view name);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_BENCHMARKS_H_
