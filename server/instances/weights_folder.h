// The operator's folder of weights files, `--weights-dir`.

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
#include "backbones/safetensors.h"
#include "backbones/state.h"
#include "backbones/weights.h"
#include "base/digest.h"

namespace backboned {

// Which weights, and how they are loaded.
struct WeightsOptions {
  std::string name;
  LoadOptions load = {};
};

// A file that is open, sound, and fits a layout.
class PreparedWeights {
 public:
  const LoadPlan& plan() const { return plan_; }

  // Computes the file's next tensor into `state`, always the same one. Returns
  // false once none is left, or the file's errors.
  absl::StatusOr<bool> LoadNext(State& state);

  // The SHA-256 of the file as 64 hexadecimal digits, once it is loaded.
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
  size_t next_ = 0;               // Of the file's tensors.
  std::shared_ptr<Sha256> hash_;  // Of what was read.
};

// Finds weights by name: a file's name without `.safetensors`. A client's name
// is compared with what the folder lists, and never becomes a path.
//
// Thread-safe. The folder may change at any time.
class WeightsFolder {
 public:
  // No folder at all.
  WeightsFolder() = default;

  // Returns an error that says what is wrong with `path` if it is no readable
  // folder.
  static absl::StatusOr<WeightsFolder> Open(const std::string& path);

  // The names of all weights, sorted. Files whose names break the rule of
  // CheckName are left out.
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
