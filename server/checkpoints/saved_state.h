// Turns a State into the tensors of safetensors files, and back.
//
// Parameters, buffers and what a network shares with earlier columns have their
// state-dict keys as names, so that the files of any checkpoint are a state
// dict for whoever leaves out the names with a slash: `generator/rng_state`,
// `grad/NAME`, `optimizer/NAME/SLOT`.

#ifndef BACKBONED_SERVER_CHECKPOINTS_SAVED_STATE_H_
#define BACKBONED_SERVER_CHECKPOINTS_SAVED_STATE_H_

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backbones/layout.h"
#include "backbones/optimizer.h"
#include "backbones/state.h"
#include "base/safetensors.h"
#include "server/checkpoints/state_folder.h"

namespace backboned {

// A tensor of a checkpoint.
struct SavedTensor {
  std::string name;
  at::Tensor tensor;
  // Files hold tensors of one part only, so that networks which differ in some
  // parts share the files of the others.
  enum class Part { kTrunk, kHead, kRest, kGrads, kOptimizer };
  Part part = Part::kTrunk;
};

// Returns all tensors of `state`, in the order of their files.
std::vector<SavedTensor> TensorsToSave(const State& state,
                                       const Layout& layout);

// Cuts tensors, contiguous ones on the CPU, into files: runs of one part, of
// which each ends once it has kFileBytes. Where it cuts depends on shapes and
// dtypes alone.
inline constexpr int64_t kFileBytes = int64_t{16} << 20;
std::vector<std::vector<SavedTensor>> CutFiles(
    std::vector<SavedTensor> tensors);

// The bytes of a safetensors file; the tensors' are their own memory.
struct FileImage {
  std::string header;
  std::vector<at::Tensor> tensors;

  std::vector<std::span<const std::byte>> Pieces() const;
  int64_t bytes() const;
};
FileImage ImageOf(const std::vector<SavedTensor>& file);

// Reads the files of a checkpoint into a State on the CPU.
//
// Not thread-safe.
class StateReader {
 public:
  struct File {
    std::string sha256;
    int64_t bytes = 0;
  };

  // Reads `files` of `folder`, which must outlive this object. `optimizer` has
  // no state yet; null: none.
  StateReader(StateFolder& folder, std::vector<File> files,
              const Layout& layout, at::ScalarType dtype,
              const OptimizerPtr& optimizer);

  // Reads the next file. Returns false once all are read, the State complete.
  //
  // Returns kFailedPrecondition (kCheckpointUnreadable) if a file is missing,
  // is not what the layout has, or not what its name says: then it is set
  // aside. Returns kInternal (kStorageFailed) if the disk refuses.
  absl::StatusOr<bool> ReadNext();

  // Returns the State, at version 1. Call it once, after the last file.
  State Take() { return std::move(state_); }

 private:
  // Where a tensor of the files belongs.
  struct Place {
    at::Tensor* tensor = nullptr;
    std::vector<int64_t> shape;
    at::ScalarType dtype = at::kFloat;
    bool is_optional = false;
  };

  absl::Status ReadFile(const File& file);
  absl::Status ReadTensor(SafetensorsFile& file, const SafetensorsEntry& entry);
  absl::Status Complete();

  StateFolder& folder_;
  const std::vector<File> files_;
  size_t next_ = 0;
  State state_;
  OptimizerState optimizer_;
  bool has_optimizer_ = false;
  at::Tensor generator_;
  std::map<std::string, Place, std::less<>> places_;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_CHECKPOINTS_SAVED_STATE_H_
