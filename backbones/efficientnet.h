// EfficientNet, b0 to b8 and l2: efficientnet.

#ifndef BACKBONED_BACKBONES_EFFICIENTNET_H_
#define BACKBONED_BACKBONES_EFFICIENTNET_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backbones/architecture.h"
#include "backbones/architecture_entry.h"
#include "backbones/layers.h"
#include "backbones/same_padding.h"

namespace backboned {

// A 3x3 stem, seven groups of inverted bottlenecks (1x1 expansion, depthwise
// convolution, squeeze and excitation, 1x1 projection), a 1x1 convolution, an
// average over each map, and a linear classifier behind dropout. In training
// the residuals of whole samples are dropped. The type scales widths, depths,
// the dropout, and the resolution that the paddings are made for.
//
// Stages: the maps at the end of each resolution, [N, C, H/2, W/2] to [N, C,
// H/32, W/32], those of the last convolution, and then the features, since
// Mammoth's `full` lists only these.
//
// Source: Tan and Le 2019, arXiv:1905.11946; Mammoth, backbone/EfficientNet.py,
// commit e75a491.
class EfficientNet : public Architecture {
 public:
  // The differences between a type and b0.
  struct Scaling {
    const char* type;
    // Factors of the filters, and of the blocks of a group.
    double width;
    double depth;
    // The side of the images.
    int64_t resolution;
    // The probability of the dropout before the classifier.
    double dropout;
  };

  // `arguments`: `num_classes`, `efficientnet_type`, as resolved by the
  // registry.
  explicit EfficientNet(const Arguments& arguments);

  // Takes [N, 3, H, W], N 0 included, with sides that leave no maps smaller
  // than a kernel.
  absl::Status CheckInput(std::span<const int64_t> shape,
                          bool training) const override;
  TrunkOutputs Trunk(Pass& pass, const at::Tensor& x) const override;
  at::Tensor Head(Pass& pass, const at::Tensor& features) const override;

 private:
  struct Block {
    // Absent if the block does not expand.
    std::optional<Conv2d> expand;
    std::optional<BatchNorm2d> bn0;
    SamePaddingConv2d depthwise;
    BatchNorm2d bn1;
    Conv2d squeeze;
    Conv2d excite;
    Conv2d project;
    BatchNorm2d bn2;
    // Adds the input to the output.
    bool residual = false;
    // The block's output is a stage.
    bool ends_stage = false;
  };
  // The dimensions of a block.
  struct BlockShape {
    std::string name;
    int64_t in_filters = 0;
    int64_t out_filters = 0;
    int64_t expand_ratio = 1;
    int64_t kernel_size = 3;
    int64_t stride = 1;
    // The side of the block's input maps.
    int64_t side = 0;
  };

  EfficientNet(const Arguments& arguments, const Scaling& scaling,
               int64_t num_classes);

  static Block DeclareBlock(Layout& layout, const BlockShape& shape);
  static std::vector<Block> DeclareBlocks(Layout& layout,
                                          const Scaling& scaling);

  // `drop`: the probability that a sample's residual is dropped.
  static at::Tensor RunBlock(Pass& pass, const Block& block,
                             const at::Tensor& x, double drop);

  // Returns the side of the last maps for images of `side`; 0 if some would be
  // smaller than a kernel.
  int64_t LastSide(int64_t side) const;

  double dropout_;
  SamePaddingConv2d stem_;
  BatchNorm2d bn0_;
  std::vector<Block> blocks_;
  Conv2d last_conv_;
  BatchNorm2d bn1_;
  Linear classifier_;
};

// The registry's entries.
std::vector<ArchitectureEntry> EfficientNetEntries();

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_EFFICIENTNET_H_
