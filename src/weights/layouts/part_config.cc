#include "weights/layouts/part_config.h"

#include <boost/json.hpp>
#include <cmath>

namespace octavo::weights {
namespace {

using boost::json::object;

constexpr std::int64_t kHeadWidth = 64;
constexpr int kMostLayers = 1000;

/// Shapes by canonical name; remembers what it did not find.
class Shapes {
 public:
  explicit Shapes(const WeightStore& weights) : weights_(weights) {}
  std::int64_t extent(const std::string& name, int axis) {
    const Shape* shape = weights_.shape_of(name);
    if (shape == nullptr || shape->rank() <= axis || (*shape)[axis] < 1) {
      if (lacking_.empty()) lacking_ = name;
      return 1;
    }
    return (*shape)[axis];
  }
  bool has(const std::string& name) const { return weights_.contains(name); }
  /// Numbers 0, 1, ... up to the largest one that `before` + number + `after` has.
  std::int64_t count(const std::string& before, const std::string& after) const {
    std::int64_t count = 0;
    for (int i = 0; i < kMostLayers; ++i) {
      if (has(before + std::to_string(i) + after)) count = i + 1;
    }
    return count;
  }
  const std::string& lacking() const { return lacking_; }

 private:
  const WeightStore& weights_;
  std::string lacking_;
};

object transformer_config(Shapes& shapes) {
  const std::string block = "transformer_blocks.";
  const std::int64_t width = shapes.extent("pos_embed.proj.weight", 0);
  const bool norm = shapes.has(block + "0.attn.norm_added_k.weight");
  const std::int64_t head = norm ? shapes.extent(block + "0.attn.norm_added_k.weight", 0) : kHeadWidth;
  const auto side =
      static_cast<std::int64_t>(std::llround(std::sqrt(static_cast<double>(shapes.extent("pos_embed.pos_embed", 1)))));
  const std::int64_t layers = shapes.count(block, ".norm1.linear.weight");
  boost::json::array dual;
  for (std::int64_t i = 0; i < layers; ++i) {
    if (shapes.has(block + std::to_string(i) + ".attn2.to_q.weight")) dual.emplace_back(i);
  }
  constexpr std::int64_t kSampleSize = 128, kPatch = 2;
  return {{"_class_name", "SD3Transformer2DModel"},
          {"num_layers", layers},
          {"num_attention_heads", width / head},
          {"attention_head_dim", head},
          {"caption_projection_dim", width},
          {"joint_attention_dim", shapes.extent("context_embedder.weight", 1)},
          {"pooled_projection_dim", shapes.extent("time_text_embed.text_embedder.linear_1.weight", 1)},
          {"in_channels", shapes.extent("pos_embed.proj.weight", 1)},
          {"out_channels", shapes.extent("proj_out.weight", 0) / (kPatch * kPatch)},
          {"patch_size", kPatch},
          {"pos_embed_max_size", side},
          {"sample_size", std::min(kSampleSize, side * kPatch)},
          {"dual_attention_layers", std::move(dual)},
          {"qk_norm", norm ? boost::json::value("rms_norm") : boost::json::value(nullptr)}};
}

object vae_config(Shapes& shapes) {
  boost::json::array channels;
  const std::int64_t levels = std::max<std::int64_t>(1, shapes.count("decoder.up_blocks.", ".resnets.0.conv1.weight"));
  for (std::int64_t level = levels - 1; level >= 0; --level) {
    channels.emplace_back(shapes.extent("decoder.up_blocks." + std::to_string(level) + ".resnets.0.conv1.weight", 0));
  }
  return {{"_class_name", "AutoencoderKL"},
          {"block_out_channels", std::move(channels)},
          {"layers_per_block", shapes.count("decoder.up_blocks.0.resnets.", ".conv1.weight") - 1},
          {"latent_channels", shapes.extent("decoder.conv_in.weight", 1)},
          {"in_channels", 3},
          {"out_channels", 3},
          {"norm_num_groups", 32},
          {"scaling_factor", 1.5305},
          {"shift_factor", 0.0609},
          {"use_quant_conv", false},
          {"use_post_quant_conv", false}};
}

object clip_config(Part part, Shapes& shapes) {
  const std::string root = "text_model.";
  const std::int64_t width = shapes.extent(root + "embeddings.token_embedding.weight", 1);
  return {{"hidden_size", width},
          {"num_hidden_layers", shapes.count(root + "encoder.layers.", ".mlp.fc1.weight")},
          {"num_attention_heads", width / std::min(width, kHeadWidth)},
          {"intermediate_size", shapes.extent(root + "encoder.layers.0.mlp.fc1.weight", 0)},
          {"vocab_size", shapes.extent(root + "embeddings.token_embedding.weight", 0)},
          {"max_position_embeddings", shapes.extent(root + "embeddings.position_embedding.weight", 0)},
          {"projection_dim", shapes.has("text_projection.weight") ? shapes.extent("text_projection.weight", 0) : width},
          {"hidden_act", part == Part::kTextEncoder ? "quick_gelu" : "gelu"},
          {"layer_norm_eps", 1e-5},
          {"eos_token_id", 2}};  // as in the published configurations: the largest id, which is the end token
}

object t5_config(Shapes& shapes) {
  const std::string attention = "encoder.block.0.layer.0.SelfAttention.";
  const std::string table = shapes.has("shared.weight") ? "shared.weight" : "encoder.embed_tokens.weight";
  const std::int64_t heads = shapes.extent(attention + "relative_attention_bias.weight", 1);
  return {{"d_model", shapes.extent(table, 1)},
          {"vocab_size", shapes.extent(table, 0)},
          {"num_layers", shapes.count("encoder.block.", ".layer.0.SelfAttention.q.weight")},
          {"num_heads", heads},
          {"d_kv", shapes.extent(attention + "q.weight", 0) / heads},
          {"d_ff", shapes.extent("encoder.block.0.layer.1.DenseReluDense.wi_0.weight", 0)},
          {"relative_attention_num_buckets", shapes.extent(attention + "relative_attention_bias.weight", 0)},
          {"relative_attention_max_distance", 128},
          {"feed_forward_proj", "gated-gelu"},
          {"layer_norm_epsilon", 1e-6}};
}

/// What the file's own metadata adds; a file that says nonsense is refused by the model's reader of configurations.
Status overlay(Part part, const WeightStore& weights, object& config) {
  for (const auto& file : weights.files()) {
    const auto text = file->metadata().find(kConfigsMetadata);
    if (text == file->metadata().end()) continue;
    boost::json::parse_options options;
    options.max_depth = 8;
    boost::system::error_code error;
    const auto value = boost::json::parse(text->second, error, {}, options);
    if (error || !value.is_object()) {
      return data_corruption(file->path().string(), "metadata " + std::string(kConfigsMetadata) + " is no JSON object");
    }
    const auto* own = value.get_object().if_contains(names_of(part).folder);
    if (own == nullptr || !own->is_object()) continue;
    for (const auto& member : own->get_object()) config[member.key()] = member.value();
  }
  return {};
}

}  // namespace

Result<object> config_from_shapes(Part part, const WeightStore& weights) {
  Shapes shapes(weights);
  object config;
  switch (part) {
    case Part::kTransformer:
      config = transformer_config(shapes);
      break;
    case Part::kVae:
      config = vae_config(shapes);
      break;
    case Part::kTextEncoder:
    case Part::kTextEncoder2:
      config = clip_config(part, shapes);
      break;
    case Part::kTextEncoder3:
      config = t5_config(shapes);
      break;
  }
  if (!shapes.lacking().empty()) {
    return data_corruption(weights.label(), fmt::format("{} is missing or has an impossible shape, so the sizes of the "
                                                        "{} are unknown",
                                                        weights.own_name(shapes.lacking()), names_of(part).title));
  }
  OCTAVO_RETURN_IF_ERROR(overlay(part, weights, config));
  return config;
}

}  // namespace octavo::weights
