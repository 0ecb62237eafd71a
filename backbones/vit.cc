#include "backbones/vit.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backbones/image_input.h"
#include "base/errors.h"

namespace backboned {
namespace {

constexpr double kNormEps = 1e-6;
// Draws weights and the position embedding.
constexpr TruncatedNormalDraw kDraw = {.std = 0.02};

int64_t Int(const Arguments& arguments, const char* name) {
  return std::get<int64_t>(arguments.at(name));
}

double Double(const Arguments& arguments, const char* name) {
  return std::get<double>(arguments.at(name));
}

// Returns the number of tokens: the class token and the patches.
int64_t Tokens(int64_t img_size, int64_t patch_size) {
  const int64_t grid = img_size / patch_size;
  return 1 + grid * grid;
}

// Returns the hidden units of a block's perceptron.
int64_t HiddenUnits(int64_t embed_dim, double mlp_ratio) {
  return static_cast<int64_t>(static_cast<double>(embed_dim) * mlp_ratio);
}

// Returns rates from 0 to `last`, in float32 as Python computes them.
std::vector<double> DropPathRates(double last, int64_t depth) {
  const at::Tensor rates = at::linspace(0, last, depth, at::kFloat);
  const float* begin = rates.const_data_ptr<float>();
  return {begin, begin + depth};
}

}  // namespace

VisionTransformer::Options::Options(const Arguments& arguments)
    : num_classes(Int(arguments, "num_classes")),
      img_size(Int(arguments, "img_size")),
      patch_size(Int(arguments, "patch_size")),
      embed_dim(Int(arguments, "embed_dim")),
      depth(Int(arguments, "depth")),
      num_heads(Int(arguments, "num_heads")),
      mlp_ratio(Double(arguments, "mlp_ratio")),
      drop_path_rate(Double(arguments, "drop_path_rate")),
      qkv_bias(std::get<bool>(arguments.at("qkv_bias"))) {}

VisionTransformer::VisionTransformer(const std::string& name,
                                     const Arguments& arguments)
    : VisionTransformer(name, arguments, Options(arguments)) {}

VisionTransformer::VisionTransformer(const std::string& name,
                                     const Arguments& arguments,
                                     const Options& options)
    : Architecture(
          {.name = name,
           .arguments = arguments,
           .attributes = {{"num_classes", options.num_classes},
                          {"feature_dim", options.embed_dim},
                          {"embed_dim", options.embed_dim},
                          {"depth", options.depth},
                          {"patch_size", options.patch_size}},
           .input_shape = {3, options.img_size, options.img_size},
           .layer_count = options.depth + 1,
           .stochastic = options.drop_path_rate > 0 && options.depth > 1}),
      options_(options),
      cls_token_(
          declare().AddParameter("cls_token", {1, 1, options.embed_dim})),
      pos_embed_(declare().AddParameter(
          "pos_embed", {1, Tokens(options.img_size, options.patch_size),
                        options.embed_dim})),
      patch_embed_(DeclarePatchEmbed(declare(), options, pos_embed_)),
      blocks_(DeclareBlocks(declare(), options)),
      norm_(declare(), "norm", options.embed_dim, kNormEps),
      head_(declare_head(), "head.heads.0", options.embed_dim,
            options.num_classes) {
  declare().MarkPositionEmbedding(pos_embed_);
  AddDraws();
}

Conv2d VisionTransformer::DeclarePatchEmbed(Layout& layout,
                                            const Options& options,
                                            size_t pos_embed) {
  Conv2d patch_embed(layout, "patch_embed.proj", 3, options.embed_dim,
                     {.kernel_size = options.patch_size,
                      .stride = options.patch_size,
                      .bias = true});
  // Drawn again at the end; this draw advances the generator as Python's does.
  layout.AddInitStep(pos_embed, NormalDraw{.std = kDraw.std});
  return patch_embed;
}

std::vector<VisionTransformer::Block> VisionTransformer::DeclareBlocks(
    Layout& layout, const Options& options) {
  std::vector<Block> blocks;
  const int64_t dim = options.embed_dim;
  const int64_t hidden = HiddenUnits(dim, options.mlp_ratio);
  for (const double rate :
       DropPathRates(options.drop_path_rate, options.depth)) {
    const std::string block = absl::StrCat("blocks.", blocks.size());
    blocks.push_back(
        {.norm1 = LayerNorm(layout, block + ".norm1", dim, kNormEps),
         .qkv = Linear(layout, block + ".attn.qkv", dim, 3 * dim,
                       options.qkv_bias),
         .proj = Linear(layout, block + ".attn.proj", dim, dim),
         .norm2 = LayerNorm(layout, block + ".norm2", dim, kNormEps),
         .fc1 = Linear(layout, block + ".mlp.fc1", dim, hidden),
         .fc2 = Linear(layout, block + ".mlp.fc2", hidden, dim),
         .drop_path = rate});
  }
  return blocks;
}

void VisionTransformer::AddDraws() {
  Layout& layout = declare();
  const auto draw = [&](const Linear& linear) {
    layout.AddInitStep(linear.weight(), kDraw);
    if (linear.has_bias()) layout.AddInitStep(linear.bias(), ConstantFill{0});
  };
  draw(head_);
  layout.AddInitStep(pos_embed_, kDraw);
  layout.AddInitStep(cls_token_, NormalDraw{.std = 1e-6});
  for (const Block& block : blocks_) {
    for (const Linear* linear :
         {&block.qkv, &block.proj, &block.fc1, &block.fc2}) {
      draw(*linear);
    }
  }
  draw(head_);
}

absl::Status VisionTransformer::CheckInput(std::span<const int64_t> shape,
                                           bool /*training*/) const {
  const int64_t side = options_.img_size;
  if (shape.size() == 4 && shape[0] >= 0 && shape[1] == 3 && shape[2] == side &&
      shape[3] == side) {
    return absl::OkStatus();
  }
  return ImageMismatch(shape, absl::StrCat(" with H = W = ", side));
}

at::Tensor VisionTransformer::Embed(Pass& pass, const at::Tensor& x) const {
  const at::Tensor patches = patch_embed_(pass, x).flatten(2).transpose(1, 2);
  const at::Tensor token =
      pass.parameter(cls_token_).expand({x.size(0), -1, -1});
  return at::cat({token, patches}, 1).add(pass.parameter(pos_embed_));
}

at::Tensor VisionTransformer::Attend(Pass& pass, const Block& block,
                                     const at::Tensor& x) const {
  const int64_t head_dim = options_.embed_dim / options_.num_heads;
  // [3, N, num_heads, tokens, head_dim]
  const std::vector<at::Tensor> qkv =
      block.qkv(pass, x)
          .reshape({x.size(0), x.size(1), 3, options_.num_heads, head_dim})
          .permute({2, 0, 3, 1, 4})
          .unbind(0);
  // The scores, and what they weigh.
  pass.CountProduct(qkv[0], qkv[1], qkv[0].numel() * x.size(1));
  pass.CountProduct(qkv[0], qkv[2], qkv[2].numel() * x.size(1));
  const at::Tensor heads = at::scaled_dot_product_attention(
      qkv[0], qkv[1], qkv[2], /*attn_mask=*/{}, /*dropout_p=*/0,
      /*is_causal=*/false, std::pow(static_cast<double>(head_dim), -0.5));
  return block.proj(pass, heads.transpose(1, 2).reshape(x.sizes()));
}

at::Tensor VisionTransformer::RunBlock(Pass& pass, const Block& block,
                                       const at::Tensor& x) const {
  const at::Tensor attention = Attend(pass, block, block.norm1(pass, x));
  const at::Tensor mixed = x.add(pass.DropPath(attention, block.drop_path));
  const at::Tensor hidden = at::gelu(block.fc1(pass, block.norm2(pass, mixed)));
  return mixed.add(pass.DropPath(block.fc2(pass, hidden), block.drop_path));
}

TrunkOutputs VisionTransformer::Trunk(Pass& pass, const at::Tensor& x) const {
  std::vector<at::Tensor> layers;
  at::Tensor out = Embed(pass, x);
  for (const Block& block : blocks_) {
    out = RunBlock(pass, block, out);
    layers.push_back(out);
  }
  out = norm_(pass, out);
  layers.push_back(out);
  return {.features = out.select(1, 0), .layers = std::move(layers)};
}

at::Tensor VisionTransformer::Head(Pass& pass,
                                   const at::Tensor& features) const {
  return head_(pass, features);
}

namespace {

// The differences between the entries.
struct Defaults {
  int64_t embed_dim;
  int64_t num_heads;
};

ArgumentSpec Size(const std::string& name, int64_t default_value,
                  int64_t maximum, const std::string& description) {
  return {.name = name,
          .default_value = default_value,
          .description = description,
          .minimum = 1,
          .maximum = maximum};
}

std::vector<ArgumentSpec> ArgumentSpecs(const Defaults& defaults) {
  return {
      NumClasses(),
      Size("img_size", 224, 2048, "side of the images, at least patch_size"),
      Size("patch_size", 16, 256, "side of the patches"),
      Size("embed_dim", defaults.embed_dim, 8192,
           "size of a token, a multiple of num_heads"),
      Size("depth", 12, 128, "number of blocks"),
      Size("num_heads", defaults.num_heads, 128, "heads of the attention"),
      {.name = "mlp_ratio",
       .kind = ArgumentKind::kDouble,
       .default_value = 4.0,
       .description =
           "hidden units of a block's perceptron, as a multiple of embed_dim",
       .minimum = 0,
       .maximum = 16},
      {.name = "drop_path_rate",
       .kind = ArgumentKind::kDouble,
       .default_value = 0.0,
       .description = "probability to drop a residual of the last block in "
                      "training; decreases to 0 at the first block",
       .minimum = 0,
       .maximum = 1},
      {.name = "qkv_bias",
       .kind = ArgumentKind::kBool,
       .default_value = true,
       .description = "adds a bias to queries, keys and values"}};
}

absl::Status CheckArguments(const Arguments& arguments) {
  const int64_t img_size = Int(arguments, "img_size");
  const int64_t patch_size = Int(arguments, "patch_size");
  const int64_t embed_dim = Int(arguments, "embed_dim");
  const int64_t num_heads = Int(arguments, "num_heads");
  const double mlp_ratio = Double(arguments, "mlp_ratio");
  if (patch_size > img_size) {
    return InvalidOption(absl::StrCat("argument patch_size is ", patch_size,
                                      ", must be at most img_size, ",
                                      img_size));
  }
  if (embed_dim % num_heads != 0) {
    return InvalidOption(absl::StrCat("argument embed_dim is ", embed_dim,
                                      ", must be a multiple of num_heads, ",
                                      num_heads));
  }
  if (HiddenUnits(embed_dim, mlp_ratio) < 1) {
    return InvalidOption(absl::StrCat("argument mlp_ratio is ", mlp_ratio,
                                      ", must be at least 1 / embed_dim, 1 / ",
                                      embed_dim));
  }
  return absl::OkStatus();
}

ArchitectureEntry Entry(const std::string& name, const std::string& description,
                        const Defaults& defaults) {
  return {.name = name,
          .description = description,
          .source =
              "Dosovitskiy et al. 2021, arXiv:2010.11929; Mammoth "
              "e75a491, backbone/vit.py",
          .arguments = ArgumentSpecs(defaults),
          .factory = [name](const Arguments& arguments)
              -> std::shared_ptr<const Architecture> {
            return std::make_shared<const VisionTransformer>(name, arguments);
          },
          .check = CheckArguments};
}

}  // namespace

std::vector<ArchitectureEntry> VitEntries() {
  std::vector<ArchitectureEntry> entries = {
      Entry("vit",
            "Vision transformer, base size with patches of 16 (ViT-B/16)",
            {.embed_dim = 768, .num_heads = 12}),
      Entry("vit-small", "Vision transformer, small size (ViT-S/16)",
            {.embed_dim = 384, .num_heads = 6}),
      Entry("vit-tiny", "Vision transformer, tiny size (ViT-Ti/16)",
            {.embed_dim = 192, .num_heads = 3})};
  entries[0].pretrained = true;
  return entries;
}

}  // namespace backboned
