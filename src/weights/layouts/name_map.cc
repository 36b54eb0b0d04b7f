#include "weights/layouts/name_map.h"

#include <charconv>
#include <span>

#include "base/check.h"

namespace octavo::weights {
namespace {

enum class Rows {
  kSame,
  kFirst,   // of three: q
  kSecond,  // k
  kThird,   // v
  kSwapped,
  kSwappedInLastBlock,
  kConvolution,  // weights stored [out, in, 1, 1]
};

/// Names of modules or, without ".weight" and ".bias" behind them, of whole tensors. '#' stands for a number, the same
/// on both sides.
struct Row {
  std::string_view canonical;
  std::string_view original;
  Rows rows = Rows::kSame;
  bool mirrored = false;  // the first number counts from the other end (decoder levels)
};

constexpr Row kTransformerRows[] = {
    {"pos_embed.pos_embed", "pos_embed"},
    {"pos_embed.proj", "x_embedder.proj"},
    {"time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"},
    {"time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"},
    {"time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0"},
    {"time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2"},
    {"context_embedder", "context_embedder"},
    {"norm_out.linear", "final_layer.adaLN_modulation.1", Rows::kSwapped},
    {"proj_out", "final_layer.linear"},
    {"transformer_blocks.#.norm1.linear", "joint_blocks.#.x_block.adaLN_modulation.1"},
    {"transformer_blocks.#.attn.to_q", "joint_blocks.#.x_block.attn.qkv", Rows::kFirst},
    {"transformer_blocks.#.attn.to_k", "joint_blocks.#.x_block.attn.qkv", Rows::kSecond},
    {"transformer_blocks.#.attn.to_v", "joint_blocks.#.x_block.attn.qkv", Rows::kThird},
    {"transformer_blocks.#.attn.norm_q", "joint_blocks.#.x_block.attn.ln_q"},
    {"transformer_blocks.#.attn.norm_k", "joint_blocks.#.x_block.attn.ln_k"},
    {"transformer_blocks.#.attn.to_out.0", "joint_blocks.#.x_block.attn.proj"},
    {"transformer_blocks.#.attn2.to_q", "joint_blocks.#.x_block.attn2.qkv", Rows::kFirst},
    {"transformer_blocks.#.attn2.to_k", "joint_blocks.#.x_block.attn2.qkv", Rows::kSecond},
    {"transformer_blocks.#.attn2.to_v", "joint_blocks.#.x_block.attn2.qkv", Rows::kThird},
    {"transformer_blocks.#.attn2.norm_q", "joint_blocks.#.x_block.attn2.ln_q"},
    {"transformer_blocks.#.attn2.norm_k", "joint_blocks.#.x_block.attn2.ln_k"},
    {"transformer_blocks.#.attn2.to_out.0", "joint_blocks.#.x_block.attn2.proj"},
    {"transformer_blocks.#.ff.net.0.proj", "joint_blocks.#.x_block.mlp.fc1"},
    {"transformer_blocks.#.ff.net.2", "joint_blocks.#.x_block.mlp.fc2"},
    {"transformer_blocks.#.norm1_context.linear", "joint_blocks.#.context_block.adaLN_modulation.1",
     Rows::kSwappedInLastBlock},
    {"transformer_blocks.#.attn.add_q_proj", "joint_blocks.#.context_block.attn.qkv", Rows::kFirst},
    {"transformer_blocks.#.attn.add_k_proj", "joint_blocks.#.context_block.attn.qkv", Rows::kSecond},
    {"transformer_blocks.#.attn.add_v_proj", "joint_blocks.#.context_block.attn.qkv", Rows::kThird},
    {"transformer_blocks.#.attn.norm_added_q", "joint_blocks.#.context_block.attn.ln_q"},
    {"transformer_blocks.#.attn.norm_added_k", "joint_blocks.#.context_block.attn.ln_k"},
    {"transformer_blocks.#.attn.to_add_out", "joint_blocks.#.context_block.attn.proj"},
    {"transformer_blocks.#.ff_context.net.0.proj", "joint_blocks.#.context_block.mlp.fc1"},
    {"transformer_blocks.#.ff_context.net.2", "joint_blocks.#.context_block.mlp.fc2"},
};

constexpr Row kVaeRows[] = {
    {"encoder.conv_in", "encoder.conv_in"},
    {"encoder.conv_out", "encoder.conv_out"},
    {"encoder.conv_norm_out", "encoder.norm_out"},
    {"encoder.down_blocks.#.resnets.#.norm1", "encoder.down.#.block.#.norm1"},
    {"encoder.down_blocks.#.resnets.#.conv1", "encoder.down.#.block.#.conv1"},
    {"encoder.down_blocks.#.resnets.#.norm2", "encoder.down.#.block.#.norm2"},
    {"encoder.down_blocks.#.resnets.#.conv2", "encoder.down.#.block.#.conv2"},
    {"encoder.down_blocks.#.resnets.#.conv_shortcut", "encoder.down.#.block.#.nin_shortcut"},
    {"encoder.down_blocks.#.downsamplers.0.conv", "encoder.down.#.downsample.conv"},
    {"encoder.mid_block.resnets.0.norm1", "encoder.mid.block_1.norm1"},
    {"encoder.mid_block.resnets.0.conv1", "encoder.mid.block_1.conv1"},
    {"encoder.mid_block.resnets.0.norm2", "encoder.mid.block_1.norm2"},
    {"encoder.mid_block.resnets.0.conv2", "encoder.mid.block_1.conv2"},
    {"encoder.mid_block.resnets.1.norm1", "encoder.mid.block_2.norm1"},
    {"encoder.mid_block.resnets.1.conv1", "encoder.mid.block_2.conv1"},
    {"encoder.mid_block.resnets.1.norm2", "encoder.mid.block_2.norm2"},
    {"encoder.mid_block.resnets.1.conv2", "encoder.mid.block_2.conv2"},
    {"encoder.mid_block.attentions.0.group_norm", "encoder.mid.attn_1.norm"},
    {"encoder.mid_block.attentions.0.to_q", "encoder.mid.attn_1.q", Rows::kConvolution},
    {"encoder.mid_block.attentions.0.to_k", "encoder.mid.attn_1.k", Rows::kConvolution},
    {"encoder.mid_block.attentions.0.to_v", "encoder.mid.attn_1.v", Rows::kConvolution},
    {"encoder.mid_block.attentions.0.to_out.0", "encoder.mid.attn_1.proj_out", Rows::kConvolution},
    {"decoder.conv_in", "decoder.conv_in"},
    {"decoder.conv_out", "decoder.conv_out"},
    {"decoder.conv_norm_out", "decoder.norm_out"},
    {"decoder.up_blocks.#.resnets.#.norm1", "decoder.up.#.block.#.norm1", Rows::kSame, true},
    {"decoder.up_blocks.#.resnets.#.conv1", "decoder.up.#.block.#.conv1", Rows::kSame, true},
    {"decoder.up_blocks.#.resnets.#.norm2", "decoder.up.#.block.#.norm2", Rows::kSame, true},
    {"decoder.up_blocks.#.resnets.#.conv2", "decoder.up.#.block.#.conv2", Rows::kSame, true},
    {"decoder.up_blocks.#.resnets.#.conv_shortcut", "decoder.up.#.block.#.nin_shortcut", Rows::kSame, true},
    {"decoder.up_blocks.#.upsamplers.0.conv", "decoder.up.#.upsample.conv", Rows::kSame, true},
    {"decoder.mid_block.resnets.0.norm1", "decoder.mid.block_1.norm1"},
    {"decoder.mid_block.resnets.0.conv1", "decoder.mid.block_1.conv1"},
    {"decoder.mid_block.resnets.0.norm2", "decoder.mid.block_1.norm2"},
    {"decoder.mid_block.resnets.0.conv2", "decoder.mid.block_1.conv2"},
    {"decoder.mid_block.resnets.1.norm1", "decoder.mid.block_2.norm1"},
    {"decoder.mid_block.resnets.1.conv1", "decoder.mid.block_2.conv1"},
    {"decoder.mid_block.resnets.1.norm2", "decoder.mid.block_2.norm2"},
    {"decoder.mid_block.resnets.1.conv2", "decoder.mid.block_2.conv2"},
    {"decoder.mid_block.attentions.0.group_norm", "decoder.mid.attn_1.norm"},
    {"decoder.mid_block.attentions.0.to_q", "decoder.mid.attn_1.q", Rows::kConvolution},
    {"decoder.mid_block.attentions.0.to_k", "decoder.mid.attn_1.k", Rows::kConvolution},
    {"decoder.mid_block.attentions.0.to_v", "decoder.mid.attn_1.v", Rows::kConvolution},
    {"decoder.mid_block.attentions.0.to_out.0", "decoder.mid.attn_1.proj_out", Rows::kConvolution},
};

std::span<const Row> rows_of(Part part) {
  if (part == Part::kTransformer) return kTransformerRows;
  if (part == Part::kVae) return kVaeRows;
  return {};
}

/// What a pattern matched: its numbers, and what follows it ("", ".weight", ".bias").
struct Match {
  std::array<int, 2> numbers{};
  int count = 0;
  std::string_view ending;
};

std::optional<Match> match(std::string_view pattern, std::string_view name) {
  Match found;
  std::size_t at = 0;
  for (const char c : pattern) {
    if (c != '#') {
      if (at >= name.size() || name[at] != c) return std::nullopt;
      ++at;
      continue;
    }
    int number = 0;
    const char* begin = name.data() + at;
    const auto [end, error] = std::from_chars(begin, name.data() + name.size(), number);
    // Leading zeros would give two names to one tensor.
    if (error != std::errc() || number < 0 || (*begin == '0' && end - begin > 1)) return std::nullopt;
    found.numbers[static_cast<std::size_t>(found.count++)] = number;
    at += static_cast<std::size_t>(end - begin);
  }
  found.ending = name.substr(at);
  if (!found.ending.empty() && found.ending != ".weight" && found.ending != ".bias") return std::nullopt;
  return found;
}

std::string fill(std::string_view pattern, const Match& match) {
  std::string name;
  std::size_t next = 0;
  for (const char c : pattern) {
    if (c == '#') {
      name += std::to_string(match.numbers[next++]);
    } else {
      name += c;
    }
  }
  return name.append(match.ending);
}

/// Mirrors the first number; false when it lies outside the levels.
bool mirror(Match& match, const NameSizes& sizes) {
  match.numbers[0] = sizes.vae_levels - 1 - match.numbers[0];
  return match.numbers[0] >= 0;
}

}  // namespace

std::optional<Part> part_of_folder(std::string_view folder) {
  for (const PartNames& row : kParts) {
    if (row.folder == folder) return row.part;
  }
  return std::nullopt;
}

std::optional<Placement> placement_in_original(Part part, std::string_view canonical, const NameSizes& sizes) {
  const auto rows = rows_of(part);
  if (rows.empty()) return Placement{.stored = std::string(canonical)};
  for (const Row& row : rows) {
    auto found = match(row.canonical, canonical);
    if (!found) continue;
    const bool last = found->numbers[0] == sizes.blocks - 1;
    if (row.mirrored && !mirror(*found, sizes)) return std::nullopt;
    Placement place{.stored = fill(row.original, *found)};
    if (row.rows == Rows::kFirst || row.rows == Rows::kSecond || row.rows == Rows::kThird) {
      place.slice = static_cast<int>(row.rows) - static_cast<int>(Rows::kFirst);
      place.slice_count = 3;
    }
    place.swap_halves = row.rows == Rows::kSwapped || (row.rows == Rows::kSwappedInLastBlock && last);
    place.as_convolution = row.rows == Rows::kConvolution && found->ending == ".weight";
    return place;
  }
  return std::nullopt;
}

std::vector<std::string> canonical_in_original(Part part, std::string_view stored, const NameSizes& sizes) {
  const auto rows = rows_of(part);
  if (rows.empty()) return {std::string(stored)};
  std::vector<std::string> names;
  for (const Row& row : rows) {
    auto found = match(row.original, stored);
    if (!found || (row.mirrored && !mirror(*found, sizes))) continue;
    names.push_back(fill(row.canonical, *found));
  }
  return names;
}

Shape shape_in_original(const Shape& canonical, const Placement& place) {
  Shape shape;
  for (int axis = 0; axis < canonical.rank(); ++axis) {
    shape.append(axis == 0 ? canonical[0] * place.slice_count : canonical[axis]);
  }
  if (place.as_convolution) {
    shape.append(1);
    shape.append(1);
  }
  return shape;
}

std::optional<Shape> shape_from_original(const Shape& stored, const Placement& place) {
  const int divisor = place.swap_halves ? 2 : place.slice_count;
  if (divisor == 1 && !place.as_convolution) return stored;
  const int rank = stored.rank() - (place.as_convolution ? 2 : 0);
  if (rank < 1 || stored[0] % divisor != 0) return std::nullopt;
  if (place.as_convolution && (stored[-1] != 1 || stored[-2] != 1)) return std::nullopt;
  Shape shape{stored[0] / place.slice_count};
  for (int axis = 1; axis < rank; ++axis) shape.append(stored[axis]);
  return shape;
}

}  // namespace octavo::weights
