// resnet18-pnn: columns of progressive networks of resnet18s.

#ifndef BACKBONED_BACKBONES_RESNET_PNN_H_
#define BACKBONED_BACKBONES_RESNET_PNN_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backbones/architecture.h"
#include "backbones/architecture_entry.h"
#include "backbones/layers.h"
#include "backbones/resnet.h"

namespace backboned {

// A later column: a resnet18 that adds adaptors of the earlier columns' stages
// to its stages after the first one, and to its logits. (The first column is a
// ResNet.)
//
// The earlier columns run without gradients and without their own adaptors,
// from their stems to their last stages. Each runs through the BatchNorm of
// this column's stem, whose statistics each of them updates. In training their
// own BatchNorms update their buffers too, which are buffers of this column.
//
// Features: this column's own, [N, 8 nf], and behind them those of the earlier
// columns, the oldest first, [N, 8 nf] each. The logits are computed from all.
//
// Source: Rusu et al. 2016, arXiv:1606.04671, as in Mammoth,
// backbone/ResNet18_PNN.py, commit e75a491.
//
// Deviations: Mammoth counts its copies of the earlier columns as parameters,
// which never get a gradient; here they are shared tensors. Its class returns
// only the logits. The images are square.
class ResNetColumn : public Architecture {
 public:
  // `arguments`: those of ResNetPnnEntries, resolved and checked by the
  // registry. `earlier`: the number of earlier columns, at least 1.
  ResNetColumn(const Arguments& arguments, size_t earlier);

  // Takes [N, 3, img_size, img_size], N at least 1.
  absl::Status CheckInput(std::span<const int64_t> shape,
                          bool training) const override;
  TrunkOutputs Trunk(Pass& pass, const at::Tensor& x) const override;
  at::Tensor Head(Pass& pass, const at::Tensor& features) const override;

 private:
  using Stage = std::vector<BasicBlock>;

  // Scales each element by its parameter, then mixes the channels.
  struct Adaptor {
    size_t alpha;
    Conv2d conv;

    // `x`: [N, C * earlier, H, W]. Returns [N, C, H, W], behind a ReLU.
    at::Tensor operator()(Pass& pass, const at::Tensor& x) const;
  };

  // An adaptor of a stage, and a stage that brings its output to the next one's
  // shape.
  struct Lateral {
    Stage stage;
    Adaptor adaptor;
  };

  // The layers of an earlier column.
  struct EarlierColumn {
    Conv2d conv1;
    std::vector<Stage> stages;
  };

  ResNetColumn(const Arguments& arguments, size_t earlier, int64_t num_classes,
               int64_t nf, int64_t img_size);

  static Stage DeclareStage(Layout& layout, const std::string& name,
                            int64_t in_planes, int64_t planes);
  static std::vector<Stage> DeclareStages(Layout& layout, int64_t nf);
  static Adaptor DeclareAdaptor(Layout& layout, const std::string& name,
                                int64_t planes, int64_t earlier, int64_t side);
  static std::vector<Lateral> DeclareLaterals(Layout& layout, int64_t nf,
                                              int64_t earlier,
                                              int64_t img_size);
  static std::vector<EarlierColumn> DeclareEarlier(Layout& layout, int64_t nf,
                                                   size_t earlier);

  static at::Tensor RunStage(Pass& pass, const Stage& stage,
                             const at::Tensor& x);

  // Returns the outputs of the four stages of all earlier columns, their
  // channels behind each other, the oldest column first. No gradients.
  std::vector<at::Tensor> RunEarlier(Pass& pass, const at::Tensor& x) const;

  int64_t img_size_;
  int64_t feature_dim_;  // Of this column's own features.
  Conv2d conv1_;
  BatchNorm2d bn1_;
  std::vector<Stage> stages_;
  Linear classifier_;
  Linear lateral_classifier_;
  Adaptor adaptor4_;
  std::vector<Lateral> laterals_;
  std::vector<EarlierColumn> earlier_;
};

// The registry's entry.
std::vector<ArchitectureEntry> ResNetPnnEntries();

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_RESNET_PNN_H_
