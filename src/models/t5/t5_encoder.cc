#include "models/t5/t5_encoder.h"

#include <array>

#include "layers/weight_streamer.h"
#include "ops/activation/activation.h"
#include "ops/attention/attention.h"
#include "ops/cast/cast.h"
#include "ops/embedding/embedding.h"
#include "ops/norm/norm.h"

namespace octavo::models {

Result<T5Config> T5Config::from_json(const boost::json::object& config, const std::string& file) {
  using weights::config_int;
  T5Config result;
  OCTAVO_ASSIGN_OR_RETURN(const auto layer_count, config_int(config, "num_layers", file));
  OCTAVO_ASSIGN_OR_RETURN(result.width, config_int(config, "d_model", file));
  OCTAVO_ASSIGN_OR_RETURN(const auto head_count, config_int(config, "num_heads", file));
  OCTAVO_ASSIGN_OR_RETURN(result.head_width, config_int(config, "d_kv", file));
  OCTAVO_ASSIGN_OR_RETURN(result.feed_forward, config_int(config, "d_ff", file));
  OCTAVO_ASSIGN_OR_RETURN(result.vocabulary, config_int(config, "vocab_size", file));
  OCTAVO_ASSIGN_OR_RETURN(result.buckets, config_int(config, "relative_attention_num_buckets", file));
  OCTAVO_ASSIGN_OR_RETURN(const std::string activation, weights::config_string(config, "feed_forward_proj", file));
  if (activation != "gated-gelu") {
    return invalid_argument(file, "feed_forward_proj '" + activation + "' is not gated-gelu (T5 v1.1)");
  }
  if (config.contains("relative_attention_max_distance")) {
    OCTAVO_ASSIGN_OR_RETURN(const auto distance, config_int(config, "relative_attention_max_distance", file));
    if (distance != 128) return invalid_argument(file, "relative_attention_max_distance must be 128");
  }
  if (config.contains("layer_norm_epsilon")) {
    OCTAVO_ASSIGN_OR_RETURN(const double eps, weights::config_number(config, "layer_norm_epsilon", file));
    result.eps = static_cast<float>(eps);
  }
  constexpr std::int64_t kMostLayers = 1000;
  if (layer_count < 1 || layer_count > kMostLayers || head_count < 1 || result.head_width < 1 || result.buckets != 32) {
    return invalid_argument(file, fmt::format("{} layers, {} heads of {}, {} position buckets are not possible",
                                              layer_count, head_count, result.head_width, result.buckets));
  }
  result.layers = static_cast<int>(layer_count);
  result.heads = static_cast<int>(head_count);
  return result;
}

Result<T5Encoder> T5Encoder::load(device::Device& device, weights::CheckpointPart part, layers::Precision precision,
                                  layers::Residency residency) {
  T5Encoder model;
  OCTAVO_ASSIGN_OR_RETURN(model.config_, T5Config::from_json(part.config, part.name + "/config.json"));
  model.label_ = part.name;
  model.dtype_ = precision.activations;
  model.weights_ = std::make_shared<weights::WeightStore>(std::move(part.weights));
  const T5Config& c = model.config_;
  const std::int64_t inner = c.heads * c.head_width;
  layers::LoadContext load{device, *model.weights_, precision, model.label_,
                           precision.quantize_t5 ? layers::AtLoad::kWeights : layers::AtLoad::kNothing};
  model.streamer_ = layers::place_weights(load, residency);

  // Separate t5xxl files carry the table under both names; diffusers folders under the first only.
  const std::string shared = "shared.weight", duplicate = "encoder.embed_tokens.weight";
  model.table_ =
      layers::load_table(load, load.weights.contains(shared) ? shared : duplicate, Shape{c.vocabulary, c.width});
  load.weights.ignore(duplicate);
  model.bias_table_ = layers::load_table(load, "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                                         Shape{c.buckets, c.heads});
  for (int i = 0; i < c.layers; ++i) {
    const std::string at = "encoder.block." + std::to_string(i) + ".layer.";
    Block block;
    block.norm1 = layers::load_f32(load, at + "0.layer_norm.weight", Shape{c.width});
    block.norm2 = layers::load_f32(load, at + "1.layer_norm.weight", Shape{c.width});
    const std::array<std::string, 3> projections = {at + "0.SelfAttention.q", at + "0.SelfAttention.k",
                                                    at + "0.SelfAttention.v"};
    block.qkv = layers::Linear::load_joined(load, projections, c.width, inner, false);
    block.out = layers::Linear::load(load, at + "0.SelfAttention.o", inner, c.width, false);
    block.gate = layers::Linear::load(load, at + "1.DenseReluDense.wi_0", c.width, c.feed_forward, false);
    block.up = layers::Linear::load(load, at + "1.DenseReluDense.wi_1", c.width, c.feed_forward, false);
    block.down = layers::Linear::load(load, at + "1.DenseReluDense.wo", c.feed_forward, c.width, false);
    model.blocks_.push_back(std::move(block));
  }
  model.final_norm_ = layers::load_f32(load, "encoder.final_layer_norm.weight", Shape{c.width});
  OCTAVO_RETURN_IF_ERROR(load.weights.finish());
  OCTAVO_RETURN_IF_ERROR(load.status);
  if (model.streamer_) OCTAVO_RETURN_IF_ERROR(model.streamer_->finish());
  model.forms_ = load.forms;
  return model;
}

void T5Encoder::encode(ops::ExecutionContext& context, const TensorView& ids, const TensorView& hidden) const {
  const T5Config& c = config_;
  const std::int64_t B = ids.dim(0), T = ids.dim(1), D = c.width, H = c.heads, head = c.head_width, inner = H * head;
  auto& arena = context.arena();
  device::Arena::Scope scope(arena);
  const TensorView x = arena.take(DType::kF32, Shape{B, T, D});
  const TensorView bias = arena.take(DType::kF32, Shape{H, T, T});
  const TensorView normed = arena.take(dtype_, Shape{B, T, D});
  const TensorView qkv = arena.take(dtype_, Shape{B, T, 3 * inner});
  const TensorView q = arena.take(dtype_, Shape{B, H, T, head});
  const TensorView k = arena.take(dtype_, Shape{B, H, T, head});
  const TensorView v = arena.take(dtype_, Shape{B, H, T, head});
  const TensorView attended = arena.take(dtype_, Shape{B, T, inner});
  const TensorView gate = arena.take(dtype_, Shape{B, T, c.feed_forward});
  const TensorView up = arena.take(dtype_, Shape{B, T, c.feed_forward});

  ops::embedding(context, {.ids = ids, .table = table_.view, .out = x});
  ops::relative_bias(context, {.table = bias_table_.view, .out = bias});
  for (int i = 0; i < c.layers; ++i) {
    const Block& block = blocks_[static_cast<std::size_t>(i)];
    ops::rms_norm(context, {.x = x, .weight = block.norm1.view, .eps = c.eps, .out = normed});
    block.qkv.forward(context, normed, qkv);
    ops::qkv_split_norm(context, {.qkv = qkv, .q = q, .k = k, .v = v});
    ops::attention(context, {.q = q, .k = k, .v = v, .bias = bias, .score_factor = 1.0f, .out = attended});
    block.out.forward(context, attended, x, {.residual = x});
    ops::rms_norm(context, {.x = x, .weight = block.norm2.view, .eps = c.eps, .out = normed});
    block.gate.forward(context, normed, gate);
    block.up.forward(context, normed, up);
    ops::activation(context, {.activation = ops::Activation::kGeluTanh, .x = gate, .multiplier = up, .out = gate});
    block.down.forward(context, gate, x, {.residual = x});
    if (context.tapped()) context.tap(label_ + ".blocks." + std::to_string(i), x);
  }
  // Through a contiguous copy, because `hidden` may be a strided slice of the joint context.
  const TensorView last = arena.take(DType::kF32, Shape{B, T, D});
  ops::rms_norm(context, {.x = x, .weight = final_norm_.view, .eps = c.eps, .out = last});
  ops::cast(context, {.x = last, .out = hidden});
  context.tap(label_ + ".last_hidden_state", hidden);
}

}  // namespace octavo::models
