#include "weights/identify.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <set>

namespace octavo::weights {
namespace {

struct Released {
  std::string_view name;
  MmditSizes sizes;
};

constexpr std::array<Released, 4> kReleased = {{
    {"Stable Diffusion 3.5 Large or Large Turbo (the same shapes)", {38, 2432, 192, 0, true}},
    {"Stable Diffusion 3.5 Medium", {24, 1536, 384, 13, true}},
    {"Stable Diffusion 3 Medium", {24, 1536, 192, 0, false}},
    {"octavo-tiny", {6, 192, 24, 0, true}},
}};

/// One part's tensors under their names without the prefix.
class Names {
 public:
  Names(const TensorMap& tensors, std::string_view prefix, const std::vector<std::string_view>& other_prefixes)
      : prefix_(prefix) {
    for (const auto& [name, info] : tensors) {
      if (!name.starts_with(prefix)) continue;
      if (prefix.empty()) {
        bool elsewhere = false;
        for (const std::string_view other : other_prefixes) elsewhere = elsewhere || name.starts_with(other);
        if (elsewhere) continue;
      }
      infos_.emplace(std::string_view(name).substr(prefix.size()), &info);
      bytes_ += info.byte_count;
    }
  }
  std::string_view prefix() const { return prefix_; }
  std::size_t size() const { return infos_.size(); }
  std::size_t byte_count() const { return bytes_; }
  std::vector<std::string> full() const {
    std::vector<std::string> names;
    for (const auto& [name, info] : infos_) names.push_back(std::string(prefix_).append(name));
    return names;
  }
  bool has(std::string_view name) const { return infos_.contains(name); }
  /// Extent `axis` of a tensor, 0 when there is none.
  std::int64_t extent(std::string_view name, int axis) const {
    const auto found = infos_.find(name);
    if (found == infos_.end() || found->second->shape.rank() <= axis) return 0;
    return found->second->shape[axis];
  }
  bool any_contains(std::string_view text) const {
    for (const auto& [name, info] : infos_) {
      if (name.find(text) != std::string_view::npos) return true;
    }
    return false;
  }
  /// How many different numbers follow `before` in the names that hold `after` behind the number.
  std::int64_t count_numbered(std::string_view before, std::string_view after = "") const {
    std::set<int> numbers;
    for (auto at = infos_.lower_bound(before); at != infos_.end() && at->first.starts_with(before); ++at) {
      const std::string_view rest = at->first.substr(before.size());
      int number = 0;
      const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
      if (error != std::errc()) continue;
      if (rest.substr(static_cast<std::size_t>(end - rest.data())).starts_with(after)) numbers.insert(number);
    }
    return static_cast<std::int64_t>(numbers.size());
  }

 private:
  std::string_view prefix_;
  std::map<std::string_view, const TensorInfo*, std::less<>> infos_;
  std::size_t bytes_ = 0;
};

std::int64_t square_root(std::int64_t value) {
  return static_cast<std::int64_t>(std::llround(std::sqrt(static_cast<double>(value))));
}

std::string describe_mmdit(const Names& names, bool original) {
  MmditSizes sizes;
  const std::string blocks = original ? "joint_blocks." : "transformer_blocks.";
  sizes.layers = names.count_numbered(blocks);
  sizes.width = names.extent(original ? "x_embedder.proj.weight" : "pos_embed.proj.weight", 0);
  sizes.position_side = square_root(names.extent(original ? "pos_embed" : "pos_embed.pos_embed", 1));
  sizes.dual_layers = names.count_numbered(blocks, original ? ".x_block.attn2." : ".attn2.");
  sizes.qk_norm = names.has(blocks + (original ? "0.context_block.attn.ln_k.weight" : "0.attn.norm_added_k.weight"));
  std::string name = released_name(sizes);
  if (name.empty()) name = "MMDiT of no released size";
  return fmt::format("{}, {} layout: {} layers, width {}, {} x {} positions, {} dual-attention blocks, {}", name,
                     original ? "original" : "diffusers", sizes.layers, sizes.width, sizes.position_side,
                     sizes.position_side, sizes.dual_layers, sizes.qk_norm ? "QK norm" : "no QK norm");
}

std::string describe_clip(const Names& names) {
  return fmt::format("{} layers, width {}, {} tokens{}", names.count_numbered("text_model.encoder.layers."),
                     names.extent("text_model.embeddings.token_embedding.weight", 1),
                     names.extent("text_model.embeddings.token_embedding.weight", 0),
                     names.has("text_projection.weight") ? ", with projection" : "");
}

IdentifiedPart identify(const Names& names) {
  IdentifiedPart part{std::string(names.prefix()), "unknown", "not a part that this version knows", names.full(),
                      names.byte_count()};
  const auto is = [&part](std::string_view kind, std::string description) {
    part.kind = kind;
    part.description = std::move(description);
  };
  if (names.has("controlnet_blocks.0.weight")) {
    is("controlnet", "ControlNet; not used by this version");
  } else if (names.has("x_embedder.proj.weight") && names.count_numbered("joint_blocks.") > 0) {
    is("transformer", describe_mmdit(names, true));
  } else if (names.has("pos_embed.proj.weight") && names.count_numbered("transformer_blocks.") > 0) {
    is("transformer", describe_mmdit(names, false));
  } else if (names.has("decoder.conv_in.weight")) {
    const bool original = names.has("decoder.mid.block_1.conv1.weight");
    is("vae", fmt::format("autoencoder, {} layout: {} latent channels{}", original ? "original" : "diffusers",
                          names.extent("decoder.conv_in.weight", 1),
                          names.has("encoder.conv_in.weight") ? "" : ", decoder alone"));
  } else if (names.has("text_model.encoder.layers.30.mlp.fc1.weight")) {
    is("clip_g", "CLIP-G text encoder: " + describe_clip(names));
  } else if (names.has("text_model.encoder.layers.1.mlp.fc1.weight")) {
    is("clip_l", "CLIP text encoder: " + describe_clip(names));
  } else if (names.has("encoder.block.0.layer.0.SelfAttention.q.weight")) {
    is("t5", fmt::format("T5 encoder: {} layers, width {}", names.count_numbered("encoder.block."),
                         names.extent("encoder.final_layer_norm.weight", 0)));
  } else if (names.any_contains("lora_")) {
    is("lora", "LoRA; not used by this version");
  } else if (names.has("input_blocks.0.0.weight")) {
    is("unknown", "UNet of Stable Diffusion 1, 2 or XL; this engine draws with Stable Diffusion 3.5 alone");
  } else if (names.count_numbered("double_blocks.") > 0) {
    is("unknown", "Flux transformer; this engine draws with Stable Diffusion 3.5 alone");
  }
  if (names.has("scaled_fp8") || names.any_contains(".comfy_quant")) part.description += "; scaled FP8 (ComfyUI)";
  return part;
}

}  // namespace

std::string released_name(const MmditSizes& sizes) {
  for (const Released& row : kReleased) {
    if (row.sizes.layers == sizes.layers && row.sizes.width == sizes.width && row.sizes.qk_norm == sizes.qk_norm &&
        row.sizes.position_side == sizes.position_side && row.sizes.dual_layers == sizes.dual_layers) {
      return std::string(row.name);
    }
  }
  return {};
}

std::vector<IdentifiedPart> identify_parts(const TensorMap& tensors) {
  const std::vector<std::string_view> prefixes = {"model.diffusion_model.",
                                                  "first_stage_model.",
                                                  "text_encoders.clip_l.transformer.",
                                                  "text_encoders.clip_g.transformer.",
                                                  "text_encoders.t5xxl.transformer.",
                                                  "vae."};
  std::vector<IdentifiedPart> parts;
  for (const std::string_view prefix : prefixes) {
    const Names names(tensors, prefix, {});
    if (names.size() > 0) parts.push_back(identify(names));
  }
  const Names rest(tensors, "", prefixes);
  if (rest.size() > 0 || tensors.empty()) parts.push_back(identify(rest));
  return parts;
}

}  // namespace octavo::weights
