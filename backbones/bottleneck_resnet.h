// The residual networks with bottleneck blocks: resnet50 and its kin.

#ifndef BACKBONED_BACKBONES_BOTTLENECK_RESNET_H_
#define BACKBONED_BACKBONES_BOTTLENECK_RESNET_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backbones/architecture.h"
#include "backbones/architecture_entry.h"
#include "backbones/layers.h"

namespace backboned {

// A 7x7 stem with max pooling, four stages of bottleneck blocks (1x1, 3x3 that
// carries the stride, 1x1 to four times the planes), an average over each map,
// and a linear classifier.
//
// Source: He et al. 2016, arXiv:1512.03385, as in torchvision; Mammoth,
// backbone/ResNetBottleneck.py, commit e75a491.
class BottleneckResNet : public Architecture {
 public:
  // The number of blocks of each stage.
  using BlockCounts = std::array<int64_t, 4>;

  // `arguments`: `num_classes`, `width_per_group`, as resolved by the registry.
  BottleneckResNet(const std::string& name, const Arguments& arguments,
                   const BlockCounts& num_blocks);

  // Takes [N, 3, H, W] with N at least 1.
  absl::Status CheckInput(std::span<const int64_t> shape,
                          bool training) const override;
  TrunkOutputs Trunk(Pass& pass, const at::Tensor& x) const override;
  at::Tensor Head(Pass& pass, const at::Tensor& features) const override;

 private:
  // A convolution and its BatchNorm.
  struct Unit {
    Conv2d conv;
    BatchNorm2d bn;

    at::Tensor operator()(Pass& pass, const at::Tensor& x) const;
  };
  struct Block {
    std::array<Unit, 3> units;
    std::optional<Unit> downsample;
  };
  using Stage = std::vector<Block>;

  BottleneckResNet(const std::string& name, const Arguments& arguments,
                   const BlockCounts& num_blocks, int64_t num_classes,
                   int64_t base_width);

  static Block DeclareBlock(Layout& layout, const std::string& name,
                            int64_t in_planes, int64_t planes, int64_t width,
                            int64_t stride);
  static std::vector<Stage> DeclareStages(Layout& layout,
                                          const BlockCounts& num_blocks,
                                          int64_t base_width);

  // Returns the block's output before its last ReLU.
  static at::Tensor RunBlock(Pass& pass, const Block& block,
                             const at::Tensor& x);

  Conv2d conv1_;
  BatchNorm2d bn1_;
  std::vector<Stage> stages_;
  Linear classifier_;
};

// The registry's entries.
std::vector<ArchitectureEntry> BottleneckResNetEntries();

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_BOTTLENECK_RESNET_H_
