// A forward as a function of tensors, which a CUDA graph can hold.

#ifndef BACKBONED_SERVER_COMPUTE_RECORDING_H_
#define BACKBONED_SERVER_COMPUTE_RECORDING_H_

#include <ATen/core/Tensor.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backbones/architecture.h"
#include "backbones/forward.h"
#include "backbones/inputs.h"
#include "backbones/state.h"
#include "server/device/precision.h"
#include "server/instances/instance.h"

namespace backboned {

// All that a forward depends on besides tensors.
class Recording {
 public:
  // Returns whether a graph can hold the forward: it draws no random numbers,
  // which come from the host, and reads no count back.
  static bool Allows(const Architecture& architecture,
                     const ForwardOptions& options);

  // Keeps nothing of the tensors.
  Recording(const Instance& instance, const State& state,
            const ForwardOptions& options, const Inputs& inputs);

  const Architecture& architecture() const { return *architecture_; }
  const ForwardOptions& options() const { return options_; }
  size_t params() const { return params_; }  // Their number.

  // Returns text that differs for forwards that differ in more than tensors.
  std::string Key() const;

  // Returns the function's arguments: all tensors of `state`, then the inputs.
  std::vector<at::Tensor> Arguments(const State& state,
                                    const Inputs& inputs) const;

  // Reads them back, and returns those behind them.
  std::span<const at::Tensor> Read(std::span<const at::Tensor> arguments,
                                   State& state, Inputs& inputs) const;

 private:
  std::shared_ptr<const Architecture> architecture_;
  Precision precision_;
  ForwardOptions options_;
  Inputs inputs_;  // Without tensors.
  size_t params_;  // Counts.
  size_t shared_;
  size_t buffers_;
};

// Returns all bits of a number, as a Key has it.
inline std::string FormatBits(double value) {
  return absl::StrCat(absl::Hex(std::bit_cast<uint64_t>(value)));
}

// For the worker: runs a forward with inputs on the device; one in evaluation,
// which is not recorded for a backward, as a CUDA graph if the worker has these
// and the forward allows it.
ForwardOutput Evaluate(const Instance& instance, const State& state,
                       Inputs inputs, const ForwardOptions& options);

}  // namespace backboned

#endif  // BACKBONED_SERVER_COMPUTE_RECORDING_H_
