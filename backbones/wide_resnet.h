// Wide residual networks for small images: wide-resnet.

#ifndef BACKBONED_BACKBONES_WIDE_RESNET_H_
#define BACKBONED_BACKBONES_WIDE_RESNET_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backbones/architecture.h"
#include "backbones/architecture_entry.h"
#include "backbones/layers.h"

namespace backboned {

// WRN-depth-widen_factor: a 3x3 stem, three stages of pre-activation blocks
// with dropout between the two 3x3 convolutions, BatchNorm and ReLU, an average
// over each map, and a linear classifier. Convolutions are drawn by
// kaiming_normal_ with fan_out.
//
// Source: Zagoruyko and Komodakis 2016, arXiv:1605.07146.
class WideResNet : public Architecture {
 public:
  // `arguments`: `num_classes`, `depth`, `widen_factor`, `dropout`, as resolved
  // by the registry.
  explicit WideResNet(const Arguments& arguments);

  // Takes [N, 3, H, W] with N at least 1.
  absl::Status CheckInput(std::span<const int64_t> shape,
                          bool training) const override;
  TrunkOutputs Trunk(Pass& pass, const at::Tensor& x) const override;
  at::Tensor Head(Pass& pass, const at::Tensor& features) const override;

 private:
  struct Block {
    BatchNorm2d bn1;
    Conv2d conv1;
    BatchNorm2d bn2;
    Conv2d conv2;
    std::optional<Conv2d> shortcut;
  };
  using Stage = std::vector<Block>;

  WideResNet(const Arguments& arguments, int64_t num_classes, int64_t depth,
             int64_t widen_factor, double dropout);

  // Declares `layer1` to `layer3`, each of `blocks`.
  static std::vector<Stage> DeclareStages(Layout& layout, int64_t blocks,
                                          int64_t widen_factor);

  at::Tensor RunBlock(Pass& pass, const Block& block,
                      const at::Tensor& x) const;

  double dropout_;
  Conv2d conv1_;
  std::vector<Stage> stages_;
  BatchNorm2d bn1_;
  Linear classifier_;
};

// The registry's entries.
std::vector<ArchitectureEntry> WideResNetEntries();

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_WIDE_RESNET_H_
