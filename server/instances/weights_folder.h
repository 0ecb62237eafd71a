// Finds weights files in the operator's folder, `--weights-dir`.

#ifndef BACKBONED_SERVER_INSTANCES_WEIGHTS_FOLDER_H_
#define BACKBONED_SERVER_INSTANCES_WEIGHTS_FOLDER_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "backbones/layout.h"
#include "backbones/state.h"
#include "backbones/weights.h"
#include "base/digest.h"
#include "base/safetensors.h"

namespace backboned {

// The name of weights, and the way to load them.
struct WeightsOptions {
  std::string name;
  LoadOptions load = {};
};

// An open weights file that is sound and fits a layout.
class PreparedWeights {
 public:
  const LoadPlan& plan() const { return plan_; }

  // Computes the file's next tensor into `state`, the same object in all calls.
  // Returns false if none is left, or the file's errors.
  absl::StatusOr<bool> LoadNext(State& state);

  // Returns the file's SHA-256 as 64 hexadecimal digits. Call it after loading.
  std::string TakeSha256() { return hash_->TakeHex(); }

 private:
  friend class WeightsFolder;

  PreparedWeights(std::string name, SafetensorsFile file, LoadPlan plan,
                  std::shared_ptr<Sha256> hash)
      : name_(std::move(name)),
        file_(std::move(file)),
        plan_(std::move(plan)),
        hash_(std::move(hash)) {}

  std::string name_;
  SafetensorsFile file_;
  LoadPlan plan_;
  size_t next_ = 0;               // Index into the file's tensors.
  std::shared_ptr<Sha256> hash_;  // Of the bytes read.
};

// Finds weights by name: a file's name without `.safetensors`. A client's name
// is compared with the folder's listing, and never becomes a path.
//
// Thread-safe. The folder may change at any time.
class WeightsFolder {
 public:
  // Stands for no folder.
  WeightsFolder() = default;

  // Returns an error, which says what is wrong, if `path` is no readable
  // folder.
  static absl::StatusOr<WeightsFolder> Open(const std::string& path);

  // Returns the names of all weights, sorted, without those that CheckName
  // refuses.
  absl::StatusOr<std::vector<std::string>> Names() const;

  // Opens weights and plans how they go into `layout`.
  //
  // Returns kNotFound (kWeightsNotFound) that lists the names,
  // kFailedPrecondition (kWeightsUnreadable) and PlanLoad's errors.
  absl::StatusOr<PreparedWeights> Prepare(const WeightsOptions& options,
                                          const Layout& layout) const;

 private:
  absl::StatusOr<int> OpenFile(std::string_view name) const;

  std::string path_;  // Empty: none.
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_INSTANCES_WEIGHTS_FOLDER_H_
