// A forward that is kept for its backward.
//
// A tape keeps the forward's graph or, if it is demoted, only what running the
// forward again needs.

#ifndef BACKBONED_SERVER_TAPES_TAPE_H_
#define BACKBONED_SERVER_TAPES_TAPE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "server/limits/memory_account.h"

namespace backboned {

struct Graph;

// Runs a tape's forward again.
//
// Thread-safe.
class Replay {
 public:
  virtual ~Replay() = default;

  // Computes the forward's graph anew, equal to the bit; nothing else changes.
  // Call this on the device's worker only. Throws the forward's exceptions.
  virtual std::shared_ptr<Graph> Run() const = 0;

  // The bytes that this object keeps alive.
  virtual int64_t bytes() const = 0;

  // Calls `visit` with the parameters and buffers that the forward ran with.
  virtual void ForEachStateTensor(
      absl::FunctionRef<void(const at::Tensor&)> visit) const = 0;

  // Counts the demotion of a tape, which then has only this.
  virtual void CountDemotion() const = 0;
};

// A kept forward. Immutable once it is stored.
struct Tape {
  // 32 hex digits that cannot be guessed; given by TapeStore::Put.
  std::string id = {};
  // The forward's instance.
  std::string instance_uid;
  // Pays for the tape, and is the only principal that may use it.
  std::string principal;
  // The principal's session with which the tape dies. Empty: none.
  std::string session = {};
  // The account's live bytes after the forward, those on GPUs among them.
  int64_t bytes = 0;
  // The forward's place among all that were recorded.
  uint64_t sequence = 0;
  // Names, shapes and types of the outputs; the tensors have no memory.
  std::vector<std::string> output_names = {};
  std::vector<at::Tensor> outputs = {};
  // The inputs whose gradients may be asked for, by name.
  std::vector<std::string> grad_inputs = {};
  // Null: the tape is demoted.
  std::shared_ptr<Graph> graph = nullptr;
  // Null: the tape cannot be demoted.
  std::shared_ptr<const Replay> replay = nullptr;
  // Pays for the memory that the graph keeps alive. `gpu_memory` is the charge
  // of that on a GPU.
  std::shared_ptr<MemoryAccount> account = nullptr;
  std::shared_ptr<const void> gpu_memory = nullptr;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_TAPES_TAPE_H_
