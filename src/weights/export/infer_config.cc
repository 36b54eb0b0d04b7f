#include "weights/export/infer_config.h"

#include <cmath>

#include "weights/synthesis/family.h"

namespace octavo::weights {
namespace {

class Shapes {
 public:
  explicit Shapes(const std::map<std::string, Shape, std::less<>>& shapes) : shapes_(shapes) {}

  /// Extent `axis`; the first tensor that is missing or of another rank is remembered, and gives 1.
  std::int64_t extent(const std::string& name, int axis) {
    const auto found = shapes_.find(name);
    if (found != shapes_.end() && found->second.rank() > axis && found->second[axis] > 0) return found->second[axis];
    if (problem_.empty()) problem_ = name;
    return 1;
  }
  bool has(const std::string& name) const { return shapes_.contains(name); }
  /// How many of before0after, before1after, ... there are without a gap.
  std::int64_t count(const std::string& before, const std::string& after) const {
    std::int64_t number = 0;
    while (has(before + std::to_string(number) + after)) ++number;
    return number;
  }
  Status status() const {
    if (problem_.empty()) return {};
    return invalid_argument(problem_, "is missing or has another shape than in Stable Diffusion 3.5");
  }

 private:
  const std::map<std::string, Shape, std::less<>>& shapes_;
  std::string problem_;
};

TransformerSizes transformer_sizes(Shapes& shapes) {
  TransformerSizes sizes;
  const std::string blocks = "transformer_blocks.";
  sizes.blocks = shapes.count(blocks, ".norm1.linear.weight");
  sizes.dual_blocks = shapes.count(blocks, ".attn2.to_q.weight");
  sizes.width = shapes.extent("pos_embed.proj.weight", 0);
  sizes.channels = shapes.extent("pos_embed.proj.weight", 1);
  sizes.head_width = shapes.extent("transformer_blocks.0.attn.norm_q.weight", 0);
  const auto positions = static_cast<double>(shapes.extent("pos_embed.pos_embed", 1));
  sizes.position_side = std::llround(std::sqrt(positions));
  sizes.context_width = shapes.extent("context_embedder.weight", 1);
  sizes.pooled_width = shapes.extent("time_text_embed.text_embedder.linear_1.weight", 1);
  return sizes;
}

VaeSizes vae_sizes(Shapes& shapes) {
  VaeSizes sizes;
  const std::string levels = "encoder.down_blocks.";
  sizes.channels.clear();
  for (std::int64_t level = 0; level < shapes.count(levels, ".resnets.0.conv1.weight"); ++level) {
    sizes.channels.push_back(shapes.extent(levels + std::to_string(level) + ".resnets.0.conv1.weight", 0));
  }
  sizes.layers_per_block = shapes.count("encoder.down_blocks.0.resnets.", ".conv1.weight");
  sizes.latent_channels = shapes.extent("decoder.conv_in.weight", 1);
  return sizes;
}

ClipSizes clip_sizes(Shapes& shapes) {
  ClipSizes sizes;
  sizes.layers = shapes.count("text_model.encoder.layers.", ".mlp.fc1.weight");
  sizes.vocabulary = shapes.extent("text_model.embeddings.token_embedding.weight", 0);
  sizes.width = shapes.extent("text_model.embeddings.token_embedding.weight", 1);
  sizes.positions = shapes.extent("text_model.embeddings.position_embedding.weight", 0);
  sizes.feed_forward = shapes.extent("text_model.encoder.layers.0.mlp.fc1.weight", 0);
  sizes.projection = shapes.extent("text_projection.weight", 0);
  return sizes;
}

T5Sizes t5_sizes(Shapes& shapes) {
  const std::string first = "encoder.block.0.layer.";
  T5Sizes sizes;
  sizes.layers = shapes.count("encoder.block.", ".layer.0.SelfAttention.q.weight");
  sizes.vocabulary = shapes.extent("shared.weight", 0);
  sizes.width = shapes.extent("shared.weight", 1);
  sizes.buckets = shapes.extent(first + "0.SelfAttention.relative_attention_bias.weight", 0);
  sizes.heads = shapes.extent(first + "0.SelfAttention.relative_attention_bias.weight", 1);
  sizes.head_width = shapes.extent(first + "0.SelfAttention.q.weight", 0) / sizes.heads;
  sizes.feed_forward = shapes.extent(first + "1.DenseReluDense.wi_0.weight", 0);
  return sizes;
}

}  // namespace

Result<std::string> infer_config(Part part, const std::map<std::string, Shape, std::less<>>& named_shapes) {
  Shapes shapes(named_shapes);
  ModelSizes sizes;
  switch (part) {
    case Part::kTransformer:
      sizes.transformer = transformer_sizes(shapes);
      break;
    case Part::kVae:
      sizes.vae = vae_sizes(shapes);
      break;
    case Part::kTextEncoder:
      sizes.clip_l = clip_sizes(shapes);
      break;
    case Part::kTextEncoder2:
      sizes.clip_g = clip_sizes(shapes);
      break;
    case Part::kTextEncoder3:
      sizes.t5 = t5_sizes(shapes);
      break;
  }
  OCTAVO_RETURN_IF_ERROR(shapes.status());
  return part_config(part, sizes, "float16");
}

}  // namespace octavo::weights
