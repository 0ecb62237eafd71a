// Runs forwards of instances again.

#ifndef BACKBONED_SERVER_COMPUTE_FORWARD_REPLAY_H_
#define BACKBONED_SERVER_COMPUTE_FORWARD_REPLAY_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "backbones/forward.h"
#include "backbones/inputs.h"
#include "backbones/state.h"
#include "server/instances/instance.h"
#include "server/tapes/tape.h"

namespace backboned {

// A recorded forward as it began: its state, inputs and options.
//
// Counts as its bytes the inputs, the generator's state if the forward draws,
// and those parameters and buffers that nothing else holds, which changes with
// the instance. A tensor that only two tapes hold counts for neither.
//
// Thread-safe.
class ForwardReplay : public Replay {
 public:
  // `state` is the forward's state, `inputs` its inputs on the CPU, as
  // PrepareInputs takes them. The options name the sequence.
  ForwardReplay(std::shared_ptr<Instance> instance, const State& state,
                Inputs inputs, ForwardOptions options);

  std::shared_ptr<Graph> Run() const override;
  int64_t bytes() const override;
  void ForEachStateTensor(
      absl::FunctionRef<void(const at::Tensor&)> visit) const override;
  void CountDemotion() const override;

 private:
  const std::shared_ptr<Instance> instance_;
  const State state_;  // Parameters and buffers only.
  const Inputs inputs_;
  ForwardOptions options_;  // With the generator's state, if it draws.
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_COMPUTE_FORWARD_REPLAY_H_
