// Building the model from a checkpoint in the diffusers layout.
#include <algorithm>
#include <array>

#include "layers/weight_streamer.h"
#include "models/mmdit/mmdit.h"

namespace octavo::models {

using weights::config_int;

Result<MmditConfig> MmditConfig::from_json(const boost::json::object& config, const std::string& file) {
  MmditConfig result;
  OCTAVO_ASSIGN_OR_RETURN(const auto layer_count, config_int(config, "num_layers", file));
  OCTAVO_ASSIGN_OR_RETURN(const auto head_count, config_int(config, "num_attention_heads", file));
  OCTAVO_ASSIGN_OR_RETURN(result.head_width, config_int(config, "attention_head_dim", file));
  OCTAVO_ASSIGN_OR_RETURN(result.in_channels, config_int(config, "in_channels", file));
  OCTAVO_ASSIGN_OR_RETURN(result.context_width, config_int(config, "joint_attention_dim", file));
  OCTAVO_ASSIGN_OR_RETURN(result.pooled_width, config_int(config, "pooled_projection_dim", file));
  OCTAVO_ASSIGN_OR_RETURN(result.position_side, config_int(config, "pos_embed_max_size", file));
  OCTAVO_ASSIGN_OR_RETURN(const auto patch, config_int(config, "patch_size", file));
  result.out_channels = result.in_channels;
  if (const auto* out = config.if_contains("out_channels"); out != nullptr && !out->is_null()) {
    OCTAVO_ASSIGN_OR_RETURN(result.out_channels, config_int(config, "out_channels", file));
  }
  if (patch != 2) return invalid_argument(file, fmt::format("patch_size {} is not 2", patch));
  const auto* norm = config.if_contains("qk_norm");
  if (norm == nullptr || norm->is_null()) {
    result.qk_norm = false;
  } else if (!norm->is_string() || norm->get_string() != "rms_norm") {
    return invalid_argument(file, "qk_norm is not rms_norm");
  }
  constexpr std::int64_t kMost = 1 << 16;  // a config is not trusted with memory
  if (layer_count < 1 || layer_count > kMost || head_count < 1 || head_count > kMost || result.head_width < 1 ||
      result.head_width > kMost || result.in_channels < 1 || result.position_side < 1) {
    return invalid_argument(
        file, fmt::format("{} layers of {} heads of {} are not possible", layer_count, head_count, result.head_width));
  }
  result.layers = static_cast<int>(layer_count);
  result.heads = static_cast<int>(head_count);
  result.width = result.heads * result.head_width;
  if (const auto* dual = config.if_contains("dual_attention_layers"); dual != nullptr && !dual->is_null()) {
    if (!dual->is_array()) return invalid_argument(file, "dual_attention_layers is not a list");
    for (const auto& entry : dual->get_array()) {
      if (!entry.is_int64() || entry.get_int64() < 0 || entry.get_int64() >= layer_count) {
        return invalid_argument(
            file, fmt::format("dual_attention_layers names what is no layer of 0 to {}", layer_count - 1));
      }
      result.dual_layers.push_back(static_cast<int>(entry.get_int64()));
    }
    std::sort(result.dual_layers.begin(), result.dual_layers.end());
    result.dual_layers.erase(std::unique(result.dual_layers.begin(), result.dual_layers.end()),
                             result.dual_layers.end());
  }
  return result;
}

Mmdit::Attention Mmdit::load_attention(layers::LoadContext& load, const std::string& at, const MmditConfig& c) {
  using layers::Linear;
  Attention attention;
  const std::array<std::string, 3> qkv = {at + "to_q", at + "to_k", at + "to_v"};
  attention.qkv = Linear::load_joined(load, qkv, c.width, c.width, true);
  attention.out = Linear::load(load, at + "to_out.0", c.width, c.width, true);
  if (c.qk_norm) {
    attention.q_norm = layers::load_f32(load, at + "norm_q.weight", Shape{c.head_width});
    attention.k_norm = layers::load_f32(load, at + "norm_k.weight", Shape{c.head_width});
  }
  return attention;
}

Mmdit::Stream Mmdit::load_image_stream(layers::LoadContext& load, layers::LoadContext& modulations,
                                       const std::string& at, const MmditConfig& c, bool dual) {
  using layers::Linear;
  Stream stream;
  stream.modulation = Linear::load(modulations, at + "norm1.linear", c.width, (dual ? 9 : 6) * c.width, true);
  stream.attention = load_attention(load, at + "attn.", c);
  if (dual) stream.own_attention = load_attention(load, at + "attn2.", c);
  stream.fc1 = Linear::load(load, at + "ff.net.0.proj", c.width, 4 * c.width, true);
  stream.fc2 = Linear::load(load, at + "ff.net.2", 4 * c.width, c.width, true);
  return stream;
}

Mmdit::Stream Mmdit::load_text_stream(layers::LoadContext& load, layers::LoadContext& modulations,
                                      const std::string& at, const MmditConfig& c, bool last) {
  using layers::Linear;
  Stream stream;
  stream.modulation = Linear::load(modulations, at + "norm1_context.linear", c.width, (last ? 2 : 6) * c.width, true);
  Attention& attention = stream.attention;
  if (c.qk_norm) {
    attention.q_norm = layers::load_f32(load, at + "attn.norm_added_q.weight", Shape{c.head_width});
    attention.k_norm = layers::load_f32(load, at + "attn.norm_added_k.weight", Shape{c.head_width});
  }
  if (last) {
    // Only the keys and values of the last text stream reach the picture: its queries, their norm weight included,
    // are in the file and have no use.
    const std::array<std::string, 2> kv = {at + "attn.add_k_proj", at + "attn.add_v_proj"};
    attention.qkv = Linear::load_joined(load, kv, c.width, c.width, true);
    load.weights.require(at + "attn.add_q_proj.weight", Shape{c.width, c.width});
    load.weights.require(at + "attn.add_q_proj.bias", Shape{c.width});
    return stream;
  }
  const std::array<std::string, 3> qkv = {at + "attn.add_q_proj", at + "attn.add_k_proj", at + "attn.add_v_proj"};
  attention.qkv = Linear::load_joined(load, qkv, c.width, c.width, true);
  attention.out = Linear::load(load, at + "attn.to_add_out", c.width, c.width, true);
  stream.fc1 = Linear::load(load, at + "ff_context.net.0.proj", c.width, 4 * c.width, true);
  stream.fc2 = Linear::load(load, at + "ff_context.net.2", 4 * c.width, c.width, true);
  return stream;
}

Result<Mmdit> Mmdit::load(device::Device& device, weights::CheckpointPart part, layers::Precision precision,
                          layers::Residency modulation_residency) {
  using layers::Linear;
  Mmdit model;
  OCTAVO_ASSIGN_OR_RETURN(model.config_, MmditConfig::from_json(part.config, part.name + "/config.json"));
  model.label_ = part.name;
  model.dtype_ = precision.activations;
  model.residual_dtype_ = precision.residuals;
  model.attention_codes_ = precision.attention_codes;
  model.weights_ = std::make_shared<weights::WeightStore>(std::move(part.weights));
  const MmditConfig& c = model.config_;
  layers::LoadContext load{device, *model.weights_, precision, model.label_};
  // The products of the blocks: nearly all the time, and robust against 8 bits. What embeds or gives the velocity keeps
  // its bits.
  layers::LoadContext products{device, *model.weights_, precision, model.label_, layers::AtLoad::kProduct};
  // Everything that makes the modulations runs once a picture on a few rows: exact arithmetic costs nothing there.
  const layers::Precision exactly{DType::kF32, precision.weights};
  layers::LoadContext exact{device, *model.weights_, exactly, model.label_};
  layers::LoadContext modulations{device, *model.weights_, exactly, model.label_, layers::AtLoad::kStorage};
  model.streamer_ = layers::place_weights(modulations, modulation_residency);

  model.patch_ = Linear::load_patch_embedding(load, "pos_embed.proj", c.in_channels, c.width);
  model.positions_ =
      layers::load_table(load, "pos_embed.pos_embed", Shape{1, c.position_side * c.position_side, c.width});
  if (model.positions_.view.defined()) {
    model.positions_.view = model.positions_.view.reshape(Shape{c.position_side, c.position_side, c.width});
  }
  model.context_ = Linear::load(exact, "context_embedder", c.context_width, c.width, true);
  const std::string embed = "time_text_embed.";
  model.time1_ = Linear::load(exact, embed + "timestep_embedder.linear_1", 256, c.width, true);
  model.time2_ = Linear::load(exact, embed + "timestep_embedder.linear_2", c.width, c.width, true);
  model.pooled1_ = Linear::load(exact, embed + "text_embedder.linear_1", c.pooled_width, c.width, true);
  model.pooled2_ = Linear::load(exact, embed + "text_embedder.linear_2", c.width, c.width, true);

  for (int i = 0; i < c.layers; ++i) {
    const std::string at = "transformer_blocks." + std::to_string(i) + ".";
    Block block;
    block.last = i == c.layers - 1;
    block.dual = c.is_dual(i);
    block.image = load_image_stream(products, modulations, at, c, block.dual);
    block.text = load_text_stream(products, modulations, at, c, block.last);
    for (Stream* stream : {&block.image, &block.text}) {
      stream->modulation_column = model.modulation_width_;
      model.modulation_width_ += stream->modulation.out_features();
    }
    model.blocks_.push_back(std::move(block));
  }
  model.final_modulation_ = Linear::load(exact, "norm_out.linear", c.width, 2 * c.width, true);
  model.final_column_ = model.modulation_width_;
  model.modulation_width_ += 2 * c.width;
  model.proj_out_ = Linear::load(load, "proj_out", c.width, 4 * c.out_channels, true);
  OCTAVO_RETURN_IF_ERROR(load.weights.finish());
  for (const layers::LoadContext* context : {&load, &products, &exact, &modulations}) {
    OCTAVO_RETURN_IF_ERROR(context->status);
    model.forms_ += context->forms;
  }
  if (model.streamer_) OCTAVO_RETURN_IF_ERROR(model.streamer_->finish());
  return model;
}

}  // namespace octavo::models
