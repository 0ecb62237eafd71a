// iCaRL's residual network for CIFAR: resnet32, of any depth 6n + 2.

#ifndef BACKBONED_BACKBONES_RESNET32_H_
#define BACKBONED_BACKBONES_RESNET32_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backbones/architecture.h"
#include "backbones/architecture_entry.h"
#include "backbones/layers.h"

namespace backboned {

// A 3x3 stem, three stages of 16, 32 and 64 filters, an average over 8x8, and a
// linear classifier. Shortcuts have no parameters. Each first convolution of a
// block, the stem's too, is followed by ReLU and then BatchNorm; the last block
// does not end with a ReLU.
//
// `bn_final` is declared and never used, as in Mammoth: it gets no gradient.
//
// Source: Rebuffi et al. 2017, arXiv:1611.07725; Mammoth,
// backbone/ResNet32.py, commit e75a491.
class ResNet32 : public Architecture {
 public:
  // `arguments`: `num_classes`, `depth`, as resolved by the registry.
  explicit ResNet32(const Arguments& arguments);

  // Takes [N, 3, H, W] with sides from 29 to 60, which average to 1x1.
  absl::Status CheckInput(std::span<const int64_t> shape,
                          bool training) const override;
  TrunkOutputs Trunk(Pass& pass, const at::Tensor& x) const override;
  at::Tensor Head(Pass& pass, const at::Tensor& features) const override;

 private:
  struct Block {
    Conv2d conv1;
    BatchNorm2d bn1;
    Conv2d conv2;
    BatchNorm2d bn2;
    int64_t stride;
    int64_t planes;
  };
  using Stage = std::vector<Block>;

  ResNet32(const Arguments& arguments, int64_t num_classes, int64_t depth);

  // Declares `layer1` to `layer3`, each of `blocks`.
  static std::vector<Stage> DeclareStages(Layout& layout, int64_t blocks);

  static at::Tensor RunBlock(Pass& pass, const Block& block,
                             const at::Tensor& x, bool last);

  Conv2d conv1_;
  BatchNorm2d bn_initial_;
  std::vector<Stage> stages_;
  BatchNorm2d bn_final_;
  Linear classifier_;
};

// The registry's entries.
std::vector<ArchitectureEntry> ResNet32Entries();

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_RESNET32_H_
