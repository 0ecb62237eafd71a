// A forward that is kept for its backward.
//
// A tape keeps the forward's graph, or, once it is demoted, only what is needed
// to run the forward again.

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

class Graph;

// What is needed to run a tape's forward again.
//
// Thread-safe.
class Replay {
 public:
  virtual ~Replay() = default;

  // Computes the forward's graph anew, equal to the bit; nothing else changes.
  // On the device's worker only. Throws what a forward throws.
  virtual std::shared_ptr<Graph> Run() const = 0;

  // Bytes that it keeps alive.
  virtual int64_t bytes() const = 0;

  // Calls `visit` with the parameters and buffers that the forward ran with.
  virtual void ForEachStateTensor(
      absl::FunctionRef<void(const at::Tensor&)> visit) const = 0;

  // Takes note that a tape has nothing else any more.
  virtual void CountDemotion() const = 0;
};

// One forward, kept. Immutable once it is stored.
struct Tape {
  // 32 hex digits that cannot be guessed; given by TapeStore::Put.
  std::string id = {};
  // Whose forward it was.
  std::string instance_uid;
  // Who pays, and the only one who may use it.
  std::string principal;
  // It dies with this session of the principal. Empty: with none.
  std::string session = {};
  // What it holds: the account's live bytes after the forward.
  int64_t bytes = 0;
  // The forward's place among all that were recorded.
  uint64_t sequence = 0;
  // Names, shapes and types of the outputs; the tensors have no memory.
  std::vector<std::string> output_names = {};
  std::vector<at::Tensor> outputs = {};
  // Whether the input's gradient may be asked for.
  bool input_grad = false;
  // Null: the tape is demoted.
  std::shared_ptr<Graph> graph = nullptr;
  // Null: the tape cannot be demoted.
  std::shared_ptr<const Replay> replay = nullptr;
  // Pays for what the graph keeps alive.
  std::shared_ptr<MemoryAccount> account = nullptr;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_TAPES_TAPE_H_
