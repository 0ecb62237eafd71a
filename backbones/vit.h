// Vision transformers: vit (ViT-B/16), vit-small, vit-tiny.

#ifndef BACKBONED_BACKBONES_VIT_H_
#define BACKBONED_BACKBONES_VIT_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backbones/architecture.h"
#include "backbones/architecture_entry.h"
#include "backbones/layers.h"

namespace backboned {

// Square patches, embedded by a convolution, behind a class token, plus a
// position embedding; blocks of self-attention and of a perceptron with GELU,
// each behind a LayerNorm and added to its input; a LayerNorm, whose class
// token is the features, and a linear classifier. In training, drop path drops
// the residuals of whole samples, the later the block the more.
//
// Stages: the tokens [N, 1 + patches, embed_dim] after each block and after the
// last LayerNorm.
//
// Source: Dosovitskiy et al. 2021, arXiv:2010.11929, as in timm; Mammoth,
// backbone/vit.py, commit e75a491.
class VisionTransformer : public Architecture {
 public:
  // `arguments`: those of VitEntries, resolved and checked by the registry.
  VisionTransformer(const std::string& name, const Arguments& arguments);

  // Takes [N, 3, img_size, img_size], N 0 included.
  absl::Status CheckInput(std::span<const int64_t> shape,
                          bool training) const override;
  TrunkOutputs Trunk(Pass& pass, const at::Tensor& x) const override;
  at::Tensor Head(Pass& pass, const at::Tensor& features) const override;

 private:
  // The arguments, named as in Python.
  struct Options {
    explicit Options(const Arguments& arguments);

    int64_t num_classes;
    int64_t img_size;
    int64_t patch_size;
    int64_t embed_dim;
    int64_t depth;
    int64_t num_heads;
    double mlp_ratio;
    double drop_path_rate;
    bool qkv_bias;
  };
  struct Block {
    LayerNorm norm1;
    Linear qkv;
    Linear proj;
    LayerNorm norm2;
    Linear fc1;
    Linear fc2;
    // The probability that a sample's residual is dropped.
    double drop_path;
  };

  VisionTransformer(const std::string& name, const Arguments& arguments,
                    const Options& options);

  // Declares the convolution, and then the first draw of `pos_embed`.
  static Conv2d DeclarePatchEmbed(Layout& layout, const Options& options,
                                  size_t pos_embed);

  static std::vector<Block> DeclareBlocks(Layout& layout,
                                          const Options& options);

  // Declares Python's last draws, on top of the default draws.
  void AddDraws();

  // Returns the tokens [N, 1 + patches, embed_dim] of the images `x`.
  at::Tensor Embed(Pass& pass, const at::Tensor& x) const;

  // `x`: [N, tokens, embed_dim]. Returns its shape.
  at::Tensor Attend(Pass& pass, const Block& block, const at::Tensor& x) const;

  at::Tensor RunBlock(Pass& pass, const Block& block,
                      const at::Tensor& x) const;

  Options options_;
  size_t cls_token_;
  size_t pos_embed_;
  Conv2d patch_embed_;
  std::vector<Block> blocks_;
  LayerNorm norm_;
  Linear head_;
};

// The registry's entries.
std::vector<ArchitectureEntry> VitEntries();

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_VIT_H_
