#include "weights/synthesis/family.h"

#include <algorithm>
#include <boost/json.hpp>

#include "weights/export/json_text.h"

namespace octavo::weights {
namespace {

using boost::json::array;
using boost::json::object;

constexpr std::int64_t kHeadWidth = 64;
constexpr std::int64_t kMostBlocks = 1000;
constexpr std::int64_t kMostHeads = 1024;
constexpr std::int64_t kSmallLayers = 2;
constexpr const char* kDiffusersVersion = "0.32.0";  // the first with every key below

/// models/octavo-tiny: its config.json files in numbers.
ModelSizes tiny_sizes() {
  ModelSizes sizes;
  sizes.transformer = {.blocks = 6, .width = 192, .position_side = 24, .context_width = 192, .pooled_width = 192};
  sizes.vae = {.channels = {32, 64, 96, 96}, .layers_per_block = 1};
  sizes.clip_l = {.layers = 2, .width = 64, .feed_forward = 512, .projection = 64};
  sizes.clip_g = {.layers = 2, .width = 128, .feed_forward = 512, .projection = 128};
  sizes.t5 = {.layers = 2, .width = 192, .heads = 3, .feed_forward = 448};
  sizes.sample_size = 32;
  sizes.vae_groups = 8;
  sizes.scaling_factor = 1.02068;  // measured on the trained latents, as the next one
  sizes.shift_factor = -0.00267;
  return sizes;
}

/// Two layers, and widths that stand to each other as the released ones: 768 : 1280 : 4096.
void make_text_encoders_small(ModelSizes& sizes, std::int64_t t5_width) {
  const ClipSizes large_l = clip_l_sizes(), large_g = clip_g_sizes();
  const T5Sizes large_t5;
  const auto shrink = [&](const ClipSizes& large) {
    ClipSizes small = large;
    small.layers = kSmallLayers;
    small.width = std::max<std::int64_t>(1, large.width * t5_width / large_t5.width / kHeadWidth) * kHeadWidth;
    small.feed_forward = 4 * small.width;
    small.projection = small.width;
    return small;
  };
  sizes.clip_l = shrink(large_l);
  sizes.clip_g = shrink(large_g);
  sizes.t5.layers = kSmallLayers;
  sizes.t5.width = t5_width;
  sizes.t5.heads = t5_width / kHeadWidth;
  sizes.t5.feed_forward = large_t5.feed_forward * t5_width / large_t5.width;
  sizes.transformer.context_width = t5_width;
  sizes.transformer.pooled_width = sizes.clip_l.projection + sizes.clip_g.projection;
}

Status check(const SizeReductions& r) {
  if (r.blocks < 0 || r.blocks > kMostBlocks) return invalid_argument("--blocks", "must be 1 to 1000");
  if (r.heads < 0 || r.heads > kMostHeads) return invalid_argument("--heads", "must be 1 to 1024");
  if (r.width_of_t5 != 0 &&
      (r.width_of_t5 < 2 * kHeadWidth || r.width_of_t5 > kMostHeads * kHeadWidth || r.width_of_t5 % kHeadWidth != 0)) {
    return invalid_argument("--width-of-t5", "must be a multiple of 64 from 128 on: both CLIP encoders fit into it");
  }
  if (r.width_of_vae < 0 || r.width_of_vae > 1024 || r.width_of_vae % 32 != 0) {
    return invalid_argument("--width-of-vae", "must be a multiple of 32 up to 1024");
  }
  return {};
}

object clip_config(const ClipSizes& sizes, const char* activation, const std::string& dtype_word) {
  return {{"architectures", array{"CLIPTextModelWithProjection"}},
          {"attention_dropout", 0.0},
          {"bos_token_id", 0},
          {"dropout", 0.0},
          {"eos_token_id", 2},
          {"hidden_act", activation},
          {"hidden_size", sizes.width},
          {"initializer_factor", 1.0},
          {"initializer_range", 0.02},
          {"intermediate_size", sizes.feed_forward},
          {"layer_norm_eps", 1e-05},
          {"max_position_embeddings", sizes.positions},
          {"model_type", "clip_text_model"},
          {"num_attention_heads", sizes.width / kHeadWidth},
          {"num_hidden_layers", sizes.layers},
          {"pad_token_id", 1},
          {"projection_dim", sizes.projection},
          {"torch_dtype", dtype_word},
          {"vocab_size", sizes.vocabulary}};
}

object t5_config(const T5Sizes& sizes, const std::string& dtype_word) {
  return {{"architectures", array{"T5EncoderModel"}},
          {"classifier_dropout", 0.0},
          {"d_ff", sizes.feed_forward},
          {"d_kv", sizes.head_width},
          {"d_model", sizes.width},
          {"decoder_start_token_id", 0},
          {"dense_act_fn", "gelu_new"},
          {"dropout_rate", 0.1},
          {"eos_token_id", 1},
          {"feed_forward_proj", "gated-gelu"},
          {"initializer_factor", 1.0},
          {"is_encoder_decoder", true},
          {"is_gated_act", true},
          {"layer_norm_epsilon", 1e-06},
          {"model_type", "t5"},
          {"num_decoder_layers", sizes.layers},
          {"num_heads", sizes.heads},
          {"num_layers", sizes.layers},
          {"output_past", true},
          {"pad_token_id", 0},
          {"relative_attention_max_distance", 128},
          {"relative_attention_num_buckets", sizes.buckets},
          {"tie_word_embeddings", false},
          {"torch_dtype", dtype_word},
          {"use_cache", true},
          {"vocab_size", sizes.vocabulary}};
}

object transformer_config(const ModelSizes& sizes) {
  const TransformerSizes& t = sizes.transformer;
  array dual;
  for (std::int64_t i = 0; i < t.dual_blocks; ++i) dual.emplace_back(i);
  return {{"_class_name", "SD3Transformer2DModel"},
          {"_diffusers_version", kDiffusersVersion},
          {"attention_head_dim", t.head_width},
          {"caption_projection_dim", t.width},
          {"dual_attention_layers", std::move(dual)},
          {"in_channels", t.channels},
          {"joint_attention_dim", t.context_width},
          {"num_attention_heads", t.width / t.head_width},
          {"num_layers", t.blocks},
          {"out_channels", t.channels},
          {"patch_size", 2},
          {"pooled_projection_dim", t.pooled_width},
          {"pos_embed_max_size", t.position_side},
          {"qk_norm", "rms_norm"},
          {"sample_size", sizes.sample_size}};
}

object vae_config(const ModelSizes& sizes) {
  array channels, down, up;
  for (const std::int64_t width : sizes.vae.channels) {
    channels.emplace_back(width);
    down.emplace_back("DownEncoderBlock2D");
    up.emplace_back("UpDecoderBlock2D");
  }
  return {{"_class_name", "AutoencoderKL"},
          {"_diffusers_version", kDiffusersVersion},
          {"act_fn", "silu"},
          {"block_out_channels", std::move(channels)},
          {"down_block_types", std::move(down)},
          {"force_upcast", true},
          {"in_channels", 3},
          {"latent_channels", sizes.vae.latent_channels},
          {"latents_mean", nullptr},
          {"latents_std", nullptr},
          {"layers_per_block", sizes.vae.layers_per_block},
          {"mid_block_add_attention", true},
          {"norm_num_groups", sizes.vae_groups},
          {"out_channels", 3},
          {"sample_size", sizes.sample_size * 8},
          {"scaling_factor", sizes.scaling_factor},
          {"shift_factor", sizes.shift_factor},
          {"up_block_types", std::move(up)},
          {"use_post_quant_conv", false},
          {"use_quant_conv", false}};
}

}  // namespace

Result<ModelSizes> model_sizes(const std::string& family, const SizeReductions& reductions,
                               const Vocabularies& small_vocabularies) {
  OCTAVO_RETURN_IF_ERROR(check(reductions));
  ModelSizes sizes;
  sizes.clip_l = clip_l_sizes();
  sizes.clip_g = clip_g_sizes();
  if (family == "large" || family == "large-turbo") {
    sizes.transformer = sd35_large_transformer();
  } else if (family == "medium") {
    sizes.transformer = sd35_medium_transformer();
  } else if (family == "tiny") {
    sizes = tiny_sizes();
  } else {
    return invalid_argument("--family", "'" + family + "' is none of large, large-turbo, medium, tiny");
  }
  TransformerSizes& t = sizes.transformer;
  if (reductions.blocks > 0) {
    t.dual_blocks = t.dual_blocks * reductions.blocks / t.blocks;  // the same share of the depth
    t.blocks = reductions.blocks;
  }
  if (reductions.heads > 0) t.width = reductions.heads * t.head_width;
  if (reductions.width_of_t5 > 0) make_text_encoders_small(sizes, reductions.width_of_t5);
  if (reductions.width_of_vae > 0) {
    const std::int64_t width = reductions.width_of_vae;
    sizes.vae.channels = {width, 2 * width, 4 * width, 4 * width};
    sizes.vae_groups = 32;
  }
  if (family == "tiny" || reductions.width_of_t5 > 0) {
    sizes.clip_l.vocabulary = small_vocabularies.clip_l;
    sizes.clip_g.vocabulary = small_vocabularies.clip_g;
    sizes.t5.vocabulary = small_vocabularies.t5;
  }
  return sizes;
}

std::string part_config(Part part, const ModelSizes& sizes, const std::string& dtype_word) {
  switch (part) {
    case Part::kTransformer:
      return json_text(transformer_config(sizes));
    case Part::kVae:
      return json_text(vae_config(sizes));
    case Part::kTextEncoder:
      return json_text(clip_config(sizes.clip_l, "quick_gelu", dtype_word));
    case Part::kTextEncoder2:
      return json_text(clip_config(sizes.clip_g, "gelu", dtype_word));
    case Part::kTextEncoder3:
      return json_text(t5_config(sizes.t5, dtype_word));
  }
  return {};
}

std::string model_index_json(bool with_t5) {
  const array nothing{nullptr, nullptr};
  return json_text({{"_class_name", "StableDiffusion3Pipeline"},
                    {"_diffusers_version", kDiffusersVersion},
                    {"feature_extractor", nothing},
                    {"image_encoder", nothing},
                    {"scheduler", {"diffusers", "FlowMatchEulerDiscreteScheduler"}},
                    {"text_encoder", {"transformers", "CLIPTextModelWithProjection"}},
                    {"text_encoder_2", {"transformers", "CLIPTextModelWithProjection"}},
                    {"text_encoder_3", with_t5 ? array{"transformers", "T5EncoderModel"} : nothing},
                    {"tokenizer", {"transformers", "CLIPTokenizer"}},
                    {"tokenizer_2", {"transformers", "CLIPTokenizer"}},
                    {"tokenizer_3", with_t5 ? array{"transformers", "T5TokenizerFast"} : nothing},
                    {"transformer", {"diffusers", "SD3Transformer2DModel"}},
                    {"vae", {"diffusers", "AutoencoderKL"}}});
}

std::string scheduler_json() {
  return json_text({{"_class_name", "FlowMatchEulerDiscreteScheduler"},
                    {"_diffusers_version", kDiffusersVersion},
                    {"num_train_timesteps", 1000},
                    {"shift", 3.0}});
}

}  // namespace octavo::weights
