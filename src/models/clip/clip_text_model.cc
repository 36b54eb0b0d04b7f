#include "models/clip/clip_text_model.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "layers/weight_streamer.h"
#include "ops/attention/attention.h"
#include "ops/cast/cast.h"
#include "ops/embedding/embedding.h"
#include "ops/norm/norm.h"

namespace octavo::models {

Result<ClipConfig> ClipConfig::from_json(const boost::json::object& config, const std::string& file) {
  using weights::config_int;
  ClipConfig result;
  OCTAVO_ASSIGN_OR_RETURN(const auto layer_count, config_int(config, "num_hidden_layers", file));
  OCTAVO_ASSIGN_OR_RETURN(result.width, config_int(config, "hidden_size", file));
  OCTAVO_ASSIGN_OR_RETURN(const auto head_count, config_int(config, "num_attention_heads", file));
  OCTAVO_ASSIGN_OR_RETURN(result.feed_forward, config_int(config, "intermediate_size", file));
  OCTAVO_ASSIGN_OR_RETURN(result.vocabulary, config_int(config, "vocab_size", file));
  OCTAVO_ASSIGN_OR_RETURN(result.positions, config_int(config, "max_position_embeddings", file));
  OCTAVO_ASSIGN_OR_RETURN(result.projection, config_int(config, "projection_dim", file));
  OCTAVO_ASSIGN_OR_RETURN(const std::string activation, weights::config_string(config, "hidden_act", file));
  if (activation == "quick_gelu") {
    result.activation = ops::Activation::kQuickGelu;
  } else if (activation == "gelu") {
    result.activation = ops::Activation::kGeluErf;
  } else {
    return invalid_argument(file, "hidden_act '" + activation + "' is not one of quick_gelu, gelu");
  }
  if (config.contains("layer_norm_eps")) {
    OCTAVO_ASSIGN_OR_RETURN(const double eps, weights::config_number(config, "layer_norm_eps", file));
    result.eps = static_cast<float>(eps);
  }
  if (config.contains("eos_token_id")) {
    OCTAVO_ASSIGN_OR_RETURN(const auto eos, config_int(config, "eos_token_id", file));
    result.eos_token_id = static_cast<int>(eos);
  }
  constexpr std::int64_t kMostLayers = 1000;  // far above any real model: a config is not trusted with memory
  if (layer_count < 2 || layer_count > kMostLayers || head_count < 1 || result.width < 1 ||
      result.width % head_count != 0) {
    return invalid_argument(file, fmt::format("{} layers of width {} with {} heads are not possible", layer_count,
                                              result.width, head_count));
  }
  result.layers = static_cast<int>(layer_count);
  result.heads = static_cast<int>(head_count);
  return result;
}

Result<ClipTextModel> ClipTextModel::load(device::Device& device, weights::CheckpointPart part, DType activation_dtype,
                                          layers::Residency residency) {
  ClipTextModel model;
  OCTAVO_ASSIGN_OR_RETURN(model.config_, ClipConfig::from_json(part.config, part.name + "/config.json"));
  model.label_ = part.name;
  model.dtype_ = activation_dtype;
  model.weights_ = std::make_shared<weights::WeightStore>(std::move(part.weights));
  const ClipConfig& c = model.config_;
  layers::LoadContext load{device, *model.weights_, activation_dtype, model.label_};
  model.streamer_ = layers::place_weights(load, residency);

  const std::string root = "text_model.";
  model.token_table_ =
      layers::load_table(load, root + "embeddings.token_embedding.weight", Shape{c.vocabulary, c.width});
  model.position_table_ =
      layers::load_table(load, root + "embeddings.position_embedding.weight", Shape{c.positions, c.width});
  for (int i = 0; i < c.layers; ++i) {
    const std::string at = root + "encoder.layers." + std::to_string(i) + ".";
    Layer layer;
    layer.norm1_weight = layers::load_f32(load, at + "layer_norm1.weight", Shape{c.width});
    layer.norm1_bias = layers::load_f32(load, at + "layer_norm1.bias", Shape{c.width});
    layer.norm2_weight = layers::load_f32(load, at + "layer_norm2.weight", Shape{c.width});
    layer.norm2_bias = layers::load_f32(load, at + "layer_norm2.bias", Shape{c.width});
    const std::array<std::string, 3> projections = {at + "self_attn.q_proj", at + "self_attn.k_proj",
                                                    at + "self_attn.v_proj"};
    layer.qkv = layers::Linear::load_joined(load, projections, c.width, c.width, true);
    layer.out = layers::Linear::load(load, at + "self_attn.out_proj", c.width, c.width, true);
    layer.fc1 = layers::Linear::load(load, at + "mlp.fc1", c.width, c.feed_forward, true);
    layer.fc2 = layers::Linear::load(load, at + "mlp.fc2", c.feed_forward, c.width, true);
    model.layers_.push_back(std::move(layer));
  }
  model.final_weight_ = layers::load_f32(load, root + "final_layer_norm.weight", Shape{c.width});
  model.final_bias_ = layers::load_f32(load, root + "final_layer_norm.bias", Shape{c.width});
  model.projection_ = layers::Linear::load(load, "text_projection", c.width, c.projection, false);
  for (const char* unused : {"text_model.embeddings.position_ids", "logit_scale"}) load.weights.ignore(unused);
  OCTAVO_RETURN_IF_ERROR(load.weights.finish());
  OCTAVO_RETURN_IF_ERROR(load.status);
  if (model.streamer_) OCTAVO_RETURN_IF_ERROR(model.streamer_->finish());
  return model;
}

int ClipTextModel::eos_row(const std::vector<std::int32_t>& ids) const {
  const auto found = config_.eos_token_id == 2 ? std::max_element(ids.begin(), ids.end())
                                               : std::find(ids.begin(), ids.end(), config_.eos_token_id);
  return found == ids.end() ? 0 : static_cast<int>(found - ids.begin());
}

void ClipTextModel::encode(ops::ExecutionContext& context, const TensorView& ids, const std::vector<int>& eos_rows,
                           const TensorView& hidden, const TensorView& pooled, int clip_layer) const {
  const ClipConfig& c = config_;
  OCTAVO_CHECK(clip_layer >= 2 && clip_layer <= c.layers, "hidden state {} of {} layers", clip_layer, c.layers);
  const std::int64_t B = ids.dim(0), T = ids.dim(1), D = c.width, H = c.heads, head = D / H;
  auto& arena = context.arena();
  device::Arena::Scope scope(arena);
  const TensorView x = arena.take(DType::kF32, Shape{B, T, D});
  const TensorView normed = arena.take(dtype_, Shape{B, T, D});
  const TensorView qkv = arena.take(dtype_, Shape{B, T, 3 * D});
  const TensorView q = arena.take(dtype_, Shape{B, H, T, head});
  const TensorView k = arena.take(dtype_, Shape{B, H, T, head});
  const TensorView v = arena.take(dtype_, Shape{B, H, T, head});
  const TensorView attended = arena.take(dtype_, Shape{B, T, D});
  const TensorView wide = arena.take(dtype_, Shape{B, T, c.feed_forward});

  ops::embedding(context, {.ids = ids, .table = token_table_.view, .positions = position_table_.view, .out = x});
  context.tap(label_ + ".embeddings", x);
  for (int i = 0; i < c.layers; ++i) {
    const Layer& layer = layers_[static_cast<std::size_t>(i)];
    ops::layer_norm(
        context,
        {.x = x, .weight = layer.norm1_weight.view, .bias = layer.norm1_bias.view, .eps = c.eps, .out = normed});
    layer.qkv.forward(context, normed, qkv);
    ops::qkv_split_norm(context, {.qkv = qkv, .q = q, .k = k, .v = v});
    ops::attention(context, {.q = q,
                             .k = k,
                             .v = v,
                             .score_factor = 1.0f / std::sqrt(static_cast<float>(head)),
                             .causal = true,
                             .out = attended});
    layer.out.forward(context, attended, x, {.residual = x});
    ops::layer_norm(
        context,
        {.x = x, .weight = layer.norm2_weight.view, .bias = layer.norm2_bias.view, .eps = c.eps, .out = normed});
    layer.fc1.forward(context, normed, wide, {.activation = c.activation});
    layer.fc2.forward(context, wide, x, {.residual = x});
    if (context.tapped()) context.tap(label_ + ".layers." + std::to_string(i), x);
    if (i == c.layers - clip_layer) ops::cast(context, {.x = x, .out = hidden});
  }
  for (std::int64_t b = 0; b < B; ++b) {
    const TensorView row = x.slice(0, b, 1).slice(1, eos_rows[static_cast<std::size_t>(b)], 1);  // [1, 1, D]
    const TensorView row_normed = normed.slice(0, b, 1).slice(1, 0, 1);
    ops::layer_norm(
        context, {.x = row, .weight = final_weight_.view, .bias = final_bias_.view, .eps = c.eps, .out = row_normed});
    projection_.forward(context, row_normed.reshape(Shape{1, D}), pooled.slice(0, b, 1));
  }
  context.tap(label_ + ".pooled", pooled);
}

}  // namespace octavo::models
