// The residual networks with basic blocks: resnet18, resnet34 and their kin.

#ifndef BACKBONED_BACKBONES_RESNET_H_
#define BACKBONED_BACKBONES_RESNET_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "backbones/architecture.h"
#include "backbones/architecture_entry.h"
#include "backbones/layers.h"

namespace backboned {

// The outputs of a residual block.
struct BlockOutput {
  at::Tensor out;
  // `out` before the last ReLU. Undefined: the block does not end with one.
  at::Tensor prerelu;
};

// Two 3x3 convolutions, each with a BatchNorm, and a shortcut. Source: He et
// al. 2016, arXiv:1512.03385.
class BasicBlock {
 public:
  // Declares the parameters in flat order: conv1, bn1, conv2, bn2, shortcut.
  BasicBlock(Layout& layout, const std::string& name, int64_t in_planes,
             int64_t planes, int64_t stride);

  // `x`: [N, in_planes, H, W]. Returns [N, planes, H/stride, W/stride], sizes
  // rounded up.
  BlockOutput operator()(Pass& pass, const at::Tensor& x) const;

 private:
  // A 1x1 convolution in blocks that change the shape.
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

// BatchNorm and ReLU before each of two 3x3 convolutions, and a shortcut
// without a BatchNorm. Source: He et al. 2016, arXiv:1603.05027, as in Mammoth.
class PreActBlock {
 public:
  // Declares the parameters in flat order: bn1, conv1, bn2, conv2, shortcut.
  PreActBlock(Layout& layout, const std::string& name, int64_t in_planes,
              int64_t planes, int64_t stride);

  // Takes and returns the shapes of BasicBlock.
  BlockOutput operator()(Pass& pass, const at::Tensor& x) const;

 private:
  BatchNorm2d bn1_;
  Conv2d conv1_;
  BatchNorm2d bn2_;
  Conv2d conv2_;
  std::optional<Conv2d> shortcut_;
};

// The differences between the members of the family.
struct ResNetDesign {
  // The number of blocks of each stage.
  std::array<int64_t, 4> num_blocks = {2, 2, 2, 2};
  bool preact = false;
  // A 7x7 convolution with stride 2 and max pooling in place of the 3x3
  // convolution.
  bool large_stem = false;
  // The ReLUs between the blocks count in the blocks' names: `layer1.0`,
  // `layer1.2`.
  bool counts_relus = false;
};

// A stem, four stages of residual blocks that double the width and halve the
// sides, an average over each map, and a linear classifier.
//
// Source: He et al. 2016, arXiv:1512.03385, in the form of Mammoth,
// backbone/ResNetBlock.py, commit e75a491.
//
// Deviation: an input so wide that its features would not fit the classifier is
// refused even if only the features are asked for.
class ResNet : public Architecture {
 public:
  // `arguments`: `num_classes`, `num_filters`, as resolved by the registry.
  ResNet(const std::string& name, const Arguments& arguments,
         const ResNetDesign& design);

  // Takes [N, 3, H, W], N at least 1, that the last stage pools to 1x1.
  absl::Status CheckInput(std::span<const int64_t> shape,
                          bool training) const override;
  TrunkOutputs Trunk(Pass& pass, const at::Tensor& x) const override;
  at::Tensor Head(Pass& pass, const at::Tensor& features) const override;

 private:
  using Block = std::variant<BasicBlock, PreActBlock>;
  using Stage = std::vector<Block>;

  ResNet(const std::string& name, const Arguments& arguments,
         const ResNetDesign& design, int64_t num_classes, int64_t nf);

  // Declares `layer1` to `layer4`.
  static std::vector<Stage> DeclareStages(Layout& layout,
                                          const ResNetDesign& design,
                                          int64_t nf);

  ResNetDesign design_;
  Conv2d conv1_;
  BatchNorm2d bn1_;
  std::vector<Stage> stages_;
  Linear classifier_;
};

// The registry's entries.
std::vector<ArchitectureEntry> ResNetEntries();

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_RESNET_H_
