// The residual networks with basic blocks: resnet18.

#ifndef BACKBONED_BACKBONES_RESNET_H_
#define BACKBONED_BACKBONES_RESNET_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backbones/architecture.h"
#include "backbones/layers.h"
#include "backbones/registry.h"

namespace backboned {

// A residual block of two 3x3 convolutions. Source: He et al. 2016,
// arXiv:1512.03385.
class BasicBlock {
 public:
  // Declares the parameters in flat order: conv1, bn1, conv2, bn2, shortcut.
  BasicBlock(Layout& layout, const std::string& name, int64_t in_planes,
             int64_t planes, int64_t stride);

  // `x`: [N, in_planes, H, W]. Returns [N, planes, H/stride, W/stride], sizes
  // rounded up.
  at::Tensor operator()(Pass& pass, const at::Tensor& x) const;

 private:
  // A 1x1 convolution, where the block changes the shape.
  struct Projection {
    Conv2d conv;
    BatchNorm2d bn;
  };

  Conv2d conv1_;
  BatchNorm2d bn1_;
  Conv2d conv2_;
  BatchNorm2d bn2_;
  std::optional<Projection> shortcut_;
};

// A 3x3 stem, four stages of basic blocks that double the width and halve the
// sides, an average over each map, and a linear classifier.
//
// Source: He et al. 2016, arXiv:1512.03385, in the form for small images of
// Mammoth, backbone/ResNetBlock.py, commit e75a491.
//
// Deviation: an input so wide that its features would not fit the classifier is
// refused also where only the features are asked for.
class ResNet : public Architecture {
 public:
  // Blocks of each stage.
  using BlockCounts = std::array<int64_t, 4>;

  // `arguments`: `num_classes`, `num_filters`, as resolved by the registry.
  ResNet(const std::string& name, const Arguments& arguments,
         const BlockCounts& num_blocks);

  // Takes [N, 3, H, W] with N at least 1, of which the last stage pools to 1x1.
  absl::Status CheckInput(std::span<const int64_t> shape,
                          bool training) const override;
  TrunkOutputs Trunk(Pass& pass, const at::Tensor& x) const override;
  at::Tensor Head(Pass& pass, const at::Tensor& features) const override;

 private:
  using Stage = std::vector<BasicBlock>;

  ResNet(const std::string& name, const Arguments& arguments,
         const BlockCounts& num_blocks, int64_t num_classes, int64_t nf);

  // Declares `layer1` to `layer4`.
  static std::vector<Stage> DeclareStages(Layout& layout,
                                          const BlockCounts& num_blocks,
                                          int64_t nf);

  Conv2d conv1_;
  BatchNorm2d bn1_;
  std::vector<Stage> stages_;
  Linear classifier_;
};

// The registry's entry.
ArchitectureEntry ResNet18Entry();

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_RESNET_H_
