#include "weights/layouts/part_tensors.h"

#include <set>

namespace octavo::weights {
namespace {

class List {
 public:
  void tensor(const std::string& name, const Shape& shape) { tensors_.push_back({name, shape}); }
  void linear(const std::string& name, std::int64_t out, std::int64_t in) {
    tensor(name + ".weight", Shape{out, in});
    tensor(name + ".bias", Shape{out});
  }
  void convolution(const std::string& name, std::int64_t out, std::int64_t in, std::int64_t kernel) {
    tensor(name + ".weight", Shape{out, in, kernel, kernel});
    tensor(name + ".bias", Shape{out});
  }
  void norm(const std::string& name, std::int64_t width) {
    tensor(name + ".weight", Shape{width});
    tensor(name + ".bias", Shape{width});
  }
  /// Two norms and two convolutions, and a third one where the channels change.
  void residual(const std::string& name, std::int64_t in, std::int64_t out) {
    norm(name + ".norm1", in);
    convolution(name + ".conv1", out, in, 3);
    norm(name + ".norm2", out);
    convolution(name + ".conv2", out, out, 3);
    if (in != out) convolution(name + ".conv_shortcut", out, in, 1);
  }
  void middle(const std::string& name, std::int64_t channels) {
    residual(name + ".resnets.0", channels, channels);
    norm(name + ".attentions.0.group_norm", channels);
    for (const char* projection : {"to_q", "to_k", "to_v", "to_out.0"}) {
      linear(name + ".attentions.0." + projection, channels, channels);
    }
    residual(name + ".resnets.1", channels, channels);
  }
  std::vector<TensorShape> take() { return std::move(tensors_); }

 private:
  std::vector<TensorShape> tensors_;
};

}  // namespace

TransformerSizes sd35_large_transformer() { return {.blocks = 38, .width = 2432, .position_side = 192}; }

TransformerSizes sd35_medium_transformer() {
  return {.blocks = 24, .width = 1536, .position_side = 384, .dual_blocks = 13};
}

std::vector<TensorShape> transformer_tensors(const TransformerSizes& s) {
  constexpr std::int64_t kPatchSide = 2, kTimestepWidth = 256;
  const std::int64_t h = s.width;
  List list;
  list.tensor("pos_embed.pos_embed", Shape{1, s.position_side * s.position_side, h});
  list.convolution("pos_embed.proj", h, s.channels, kPatchSide);
  list.linear("time_text_embed.timestep_embedder.linear_1", h, kTimestepWidth);
  list.linear("time_text_embed.timestep_embedder.linear_2", h, h);
  list.linear("time_text_embed.text_embedder.linear_1", h, s.pooled_width);
  list.linear("time_text_embed.text_embedder.linear_2", h, h);
  list.linear("context_embedder", h, s.context_width);
  for (std::int64_t i = 0; i < s.blocks; ++i) {
    const std::string at = "transformer_blocks." + std::to_string(i) + ".";
    const bool last = i == s.blocks - 1, dual = i < s.dual_blocks;
    list.linear(at + "norm1.linear", (dual ? 9 : 6) * h, h);
    list.linear(at + "norm1_context.linear", (last ? 2 : 6) * h, h);
    for (const char* name : {"to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0"}) {
      list.linear(at + "attn." + name, h, h);
    }
    if (!last) list.linear(at + "attn.to_add_out", h, h);
    if (dual) {
      for (const char* name : {"to_q", "to_k", "to_v", "to_out.0"}) list.linear(at + "attn2." + name, h, h);
    }
    if (s.qk_norm) {
      for (const char* name : {"norm_q", "norm_k", "norm_added_q", "norm_added_k"}) {
        list.tensor(at + "attn." + name + ".weight", Shape{s.head_width});
      }
      if (dual) {
        list.tensor(at + "attn2.norm_q.weight", Shape{s.head_width});
        list.tensor(at + "attn2.norm_k.weight", Shape{s.head_width});
      }
    }
    list.linear(at + "ff.net.0.proj", 4 * h, h);
    list.linear(at + "ff.net.2", h, 4 * h);
    if (!last) {
      list.linear(at + "ff_context.net.0.proj", 4 * h, h);
      list.linear(at + "ff_context.net.2", h, 4 * h);
    }
  }
  list.linear("norm_out.linear", 2 * h, h);
  list.linear("proj_out", kPatchSide * kPatchSide * s.channels, h);
  return list.take();
}

std::vector<TensorShape> vae_tensors(const VaeSizes& s) {
  const std::size_t levels = s.channels.size();
  const std::int64_t deepest = s.channels.back(), first = s.channels.front();
  List list;
  list.convolution("encoder.conv_in", first, 3, 3);
  std::int64_t in = first;
  for (std::size_t level = 0; level < levels; ++level) {
    const std::string at = "encoder.down_blocks." + std::to_string(level) + ".";
    for (std::int64_t i = 0; i < s.layers_per_block; ++i) {
      list.residual(at + "resnets." + std::to_string(i), in, s.channels[level]);
      in = s.channels[level];
    }
    if (level + 1 < levels) list.convolution(at + "downsamplers.0.conv", in, in, 3);
  }
  list.middle("encoder.mid_block", deepest);
  list.norm("encoder.conv_norm_out", deepest);
  list.convolution("encoder.conv_out", 2 * s.latent_channels, deepest, 3);
  list.convolution("decoder.conv_in", deepest, s.latent_channels, 3);
  list.middle("decoder.mid_block", deepest);
  in = deepest;
  for (std::size_t level = 0; level < levels; ++level) {
    const std::string at = "decoder.up_blocks." + std::to_string(level) + ".";
    const std::int64_t out = s.channels[levels - 1 - level];
    for (std::int64_t i = 0; i <= s.layers_per_block; ++i) {
      list.residual(at + "resnets." + std::to_string(i), in, out);
      in = out;
    }
    if (level + 1 < levels) list.convolution(at + "upsamplers.0.conv", in, in, 3);
  }
  list.norm("decoder.conv_norm_out", first);
  list.convolution("decoder.conv_out", 3, first, 3);
  return list.take();
}

ClipSizes clip_l_sizes() { return {.layers = 12, .width = 768, .feed_forward = 3072, .projection = 768}; }
ClipSizes clip_g_sizes() { return {.layers = 32, .width = 1280, .feed_forward = 5120, .projection = 1280}; }

std::vector<TensorShape> clip_tensors(const ClipSizes& s) {
  List list;
  const std::string root = "text_model.";
  list.tensor(root + "embeddings.token_embedding.weight", Shape{s.vocabulary, s.width});
  list.tensor(root + "embeddings.position_embedding.weight", Shape{s.positions, s.width});
  for (std::int64_t i = 0; i < s.layers; ++i) {
    const std::string at = root + "encoder.layers." + std::to_string(i) + ".";
    for (const char* name : {"q_proj", "k_proj", "v_proj", "out_proj"}) {
      list.linear(at + "self_attn." + name, s.width, s.width);
    }
    list.norm(at + "layer_norm1", s.width);
    list.linear(at + "mlp.fc1", s.feed_forward, s.width);
    list.linear(at + "mlp.fc2", s.width, s.feed_forward);
    list.norm(at + "layer_norm2", s.width);
  }
  list.norm(root + "final_layer_norm", s.width);
  list.tensor("text_projection.weight", Shape{s.projection, s.width});
  return list.take();
}

std::vector<TensorShape> t5_tensors(const T5Sizes& s) {
  const std::int64_t inner = s.heads * s.head_width;
  List list;
  list.tensor("shared.weight", Shape{s.vocabulary, s.width});
  for (std::int64_t i = 0; i < s.layers; ++i) {
    const std::string at = "encoder.block." + std::to_string(i) + ".layer.";
    for (const char* name : {"q", "k", "v"}) {
      list.tensor(at + "0.SelfAttention." + name + ".weight", Shape{inner, s.width});
    }
    list.tensor(at + "0.SelfAttention.o.weight", Shape{s.width, inner});
    if (i == 0) list.tensor(at + "0.SelfAttention.relative_attention_bias.weight", Shape{s.buckets, s.heads});
    list.tensor(at + "0.layer_norm.weight", Shape{s.width});
    list.tensor(at + "1.DenseReluDense.wi_0.weight", Shape{s.feed_forward, s.width});
    list.tensor(at + "1.DenseReluDense.wi_1.weight", Shape{s.feed_forward, s.width});
    list.tensor(at + "1.DenseReluDense.wo.weight", Shape{s.width, s.feed_forward});
    list.tensor(at + "1.layer_norm.weight", Shape{s.width});
  }
  list.tensor("encoder.final_layer_norm.weight", Shape{s.width});
  return list.take();
}

std::vector<TensorShape> in_original_layout(Part part, const std::vector<TensorShape>& canonical,
                                            const NameSizes& sizes) {
  std::vector<TensorShape> stored;
  std::set<std::string> seen;
  for (const TensorShape& tensor : canonical) {
    const auto place = placement_in_original(part, tensor.name, sizes);
    OCTAVO_CHECK(place.has_value(), "the original layout has no place for {}", tensor.name);
    if (!seen.insert(place->stored).second) continue;
    stored.push_back({place->stored, shape_in_original(tensor.shape, *place)});
  }
  return stored;
}

}  // namespace octavo::weights
