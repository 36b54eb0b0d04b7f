#include "weights/identify.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <set>

#include "weights/layouts/name_map.h"

namespace octavo::weights {
namespace {

constexpr std::string_view kForeign = "this engine draws with Stable Diffusion 3.5 alone: give --model its files";

struct Released {
  std::string_view name;
  MmditSizes sizes;
};

constexpr std::array<Released, 4> kReleased = {{
    {"Stable Diffusion 3.5 Large or Large Turbo (the same shapes)", kLargeSizes},
    {"Stable Diffusion 3.5 Medium", kMediumSizes},
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
  bool any_fp8() const {
    for (const auto& [name, info] : infos_) {
      if (info->dtype == "F8_E4M3" || info->dtype == "F8_E5M2") return true;
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
  part.original = names.has("x_embedder.proj.weight") || names.has("decoder.mid.block_1.conv1.weight");
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
    is("vae", fmt::format("autoencoder, {} layout: {} latent channels{}", part.original ? "original" : "diffusers",
                          names.extent("decoder.conv_in.weight", 1),
                          names.has("encoder.conv_in.weight") ? "" : ", decoder alone"));
  } else if (names.has("text_model.encoder.layers.30.mlp.fc1.weight")) {
    is("clip_g", "CLIP-G text encoder: " + describe_clip(names));
    part.released = true;
  } else if (names.has("text_model.encoder.layers.1.mlp.fc1.weight")) {
    // Reduced encoders are told by their place alone.
    const bool second = names.prefix() == names_of(Part::kTextEncoder2).prefix;
    is(second ? "clip_g" : "clip_l", "CLIP text encoder: " + describe_clip(names));
    part.released = names.extent("text_model.embeddings.token_embedding.weight", 1) == 768 &&
                    names.count_numbered("text_model.encoder.layers.") == 12;
  } else if (names.has("encoder.block.0.layer.0.SelfAttention.q.weight")) {
    is("t5", fmt::format("T5 encoder: {} layers, width {}", names.count_numbered("encoder.block."),
                         names.extent("encoder.final_layer_norm.weight", 0)));
  } else if (names.any_contains("lora_")) {
    is("lora", "LoRA; not used by this version");
  } else if (names.has("input_blocks.0.0.weight")) {
    const char* which = names.has("label_emb.0.0.weight") ? "XL" : "1 or 2";
    is("unknown", fmt::format("UNet of Stable Diffusion {}; {}", which, kForeign));
    part.foreign = true;
  } else if (names.has("down_blocks.0.resnets.0.conv1.weight") && names.has("conv_in.weight")) {
    is("unknown", fmt::format("UNet of Stable Diffusion 1, 2 or XL in the diffusers layout; {}", kForeign));
    part.foreign = true;
  } else if (names.count_numbered("double_blocks.") > 0 || names.count_numbered("single_transformer_blocks.") > 0) {
    is("unknown", fmt::format("Flux transformer; {}", kForeign));
    part.foreign = true;
  } else if (names.count_numbered("transformer.resblocks.") > 0) {
    is("unknown",
       "CLIP in open_clip's layout; use clip_l.safetensors or clip_g.safetensors as published with Stable "
       "Diffusion 3.5");
  }
  if (names.has(kScaledFp8Marker) || names.any_contains(kComfyQuant) || names.any_contains(kOldWeightScale) ||
      names.any_contains(kNewWeightScale)) {
    part.description += "; scaled FP8 (ComfyUI)";
  } else if (names.any_fp8()) {
    part.description += "; plain FP8";
  }
  return part;
}

}  // namespace

std::string released_name(const MmditSizes& sizes) {
  for (const Released& row : kReleased) {
    if (row.sizes == sizes) return std::string(row.name);
  }
  return {};
}

std::vector<IdentifiedPart> identify_parts(const TensorMap& tensors) {
  std::vector<std::string_view> prefixes;
  prefixes.reserve(kParts.size() + 1);
  for (const PartNames& row : kParts) prefixes.push_back(row.prefix);
  prefixes.push_back("vae.");  // some standalone autoencoders
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
