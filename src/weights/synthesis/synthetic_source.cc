#include "weights/synthesis/synthetic_source.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "tensor/convert.h"

namespace octavo::weights {
namespace {

constexpr float kLeastOutlier = 50.0f, kLargestOutlier = 1000.0f;
constexpr std::int64_t kBlock = 1024;  // values that pass through a buffer on the stack

// splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014), entered at any index.
constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15ull;
inline std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

std::uint64_t fnv1a(std::string_view text) {
  std::uint64_t value = 0xCBF29CE484222325ull;
  for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
  return value;
}

std::uint64_t key_of(std::uint64_t seed, std::string_view name) { return mix(mix(seed + kGolden) ^ fnv1a(name)); }

/// The sum of the four 16-bit fields of a hash, centred and divided by its deviation, 65536 / sqrt(3).
inline float bell(std::uint64_t hash) {
  const auto sum =
      static_cast<std::int32_t>((hash & 0xFFFF) + ((hash >> 16) & 0xFFFF) + ((hash >> 32) & 0xFFFF) + (hash >> 48));
  return static_cast<float>(sum - 131070) * (1.0f / 37837.22f);
}

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

/// Products and convolutions whose result is added to a stream that nothing normalises on the way.
bool writes_into_stream(Part part, std::string_view name) {
  switch (part) {
    case Part::kTransformer:
      return false;  // gated
    case Part::kVae:
      return contains(name, ".conv2.") || contains(name, ".to_out.0.");
    case Part::kTextEncoder:
    case Part::kTextEncoder2:
      return contains(name, ".out_proj.") || contains(name, ".fc2.");
    case Part::kTextEncoder3:
      return contains(name, "SelfAttention.o.") || contains(name, ".wo.");
  }
  return false;
}

bool is_norm_weight(std::string_view name) {
  // The modulations' layers are called norm1.linear: they are products.
  return name.ends_with(".weight") && contains(name, "norm") && !contains(name, ".linear.");
}

std::int64_t fan_in(const Shape& shape) {
  std::int64_t product = 1;
  for (int axis = 1; axis < shape.rank(); ++axis) product *= shape[axis];
  return product;
}

/// "transformer_blocks.12.attn.to_q.weight" into 12 and "attn.to_q.weight"; -1 when it is not a block's.
int split_block(std::string_view name, std::string_view& rest) {
  constexpr std::string_view kBefore = "transformer_blocks.";
  if (!name.starts_with(kBefore)) return -1;
  name.remove_prefix(kBefore.size());
  int block = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), block);
  if (error != std::errc()) return -1;
  rest = name.substr(static_cast<std::size_t>(end - name.data()) + 1);
  return block;
}

}  // namespace

SyntheticSource::SyntheticSource(const ModelSizes& sizes, const SynthesisOptions& options)
    : sizes_(sizes), options_(options) {
  const char* word = "bfloat16";
  if (options.dtype == DType::kF32) word = "float32";
  if (options.dtype == DType::kF16) word = "float16";
  const auto add = [&](Part part, const std::vector<TensorShape>& tensors) {
    SourcePart& added = parts_.emplace_back(SourcePart{part, part_config(part, sizes, word), {}});
    auto& recipes = recipes_.emplace_back();
    for (const TensorShape& tensor : tensors) {
      added.tensors.push_back({tensor.name, tensor.shape, options.dtype});
      recipes.push_back(recipe_of(part, added.tensors.back()));
    }
  };
  add(Part::kTransformer, transformer_tensors(sizes.transformer));
  add(Part::kVae, vae_tensors(sizes.vae));
  add(Part::kTextEncoder, clip_tensors(sizes.clip_l));
  add(Part::kTextEncoder2, clip_tensors(sizes.clip_g));
  add(Part::kTextEncoder3, t5_tensors(sizes.t5));

  // diffusers, models/embeddings.py, get_2d_sincos_pos_embed: half of the channels for each coordinate, first sines,
  // then cosines; coordinates are scaled so that the default picture spans its own number of patches.
  const std::int64_t side = sizes.transformer.position_side, half = sizes.transformer.width / 2;
  const std::int64_t frequencies = half / 2;
  const std::int64_t default_side = sizes.sample_size / 2;
  const double scale = static_cast<double>(side) / static_cast<double>(default_side);
  position_axis_.resize(static_cast<std::size_t>(side * half));
  for (std::int64_t at = 0; at < side; ++at) {
    for (std::int64_t i = 0; i < frequencies; ++i) {
      const double angle = static_cast<double>(at) / scale *
                           std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(frequencies));
      position_axis_[static_cast<std::size_t>(at * half + i)] = static_cast<float>(std::sin(angle));
      position_axis_[static_cast<std::size_t>(at * half + frequencies + i)] = static_cast<float>(std::cos(angle));
    }
  }
}

SyntheticSource::Recipe SyntheticSource::recipe_of(Part part, const SourceTensor& tensor) const {
  const std::string& name = tensor.name;
  const auto per_input = static_cast<float>(1.0 / std::sqrt(static_cast<double>(fan_in(tensor.shape))));
  const bool modulation = part == Part::kTransformer && contains(name, "norm") && contains(name, ".linear.");
  Recipe recipe;
  recipe.key = key_of(options_.seed, std::string(names_of(part).folder) + "/" + name);
  if (name == "pos_embed.pos_embed") {
    recipe.position_table = true;
  } else if (is_norm_weight(name)) {
    recipe.mean = 1.0f;
    recipe.deviation = 0.1f;
  } else if (name.ends_with(".bias")) {
    recipe.deviation = modulation ? 0.1f : 0.02f;
  } else if (name == "shared.weight") {
    recipe.deviation = 1.0f;
  } else if (contains(name, "token_embedding") || contains(name, "relative_attention_bias")) {
    recipe.deviation = 0.5f;
  } else if (contains(name, "position_embedding")) {
    recipe.deviation = 0.1f;
  } else if (modulation) {
    recipe.deviation = 0.5f * per_input;
  } else {
    recipe.deviation = per_input;
    if (writes_into_stream(part, name)) recipe.deviation *= 0.5f;
    if (part == Part::kTextEncoder3 && contains(name, "SelfAttention.q.")) {
      recipe.deviation /= std::sqrt(static_cast<float>(sizes_.t5.head_width));
    }
  }
  if (part == Part::kTransformer && options_.outliers > 0) plant(tensor, recipe);
  return recipe;
}

std::vector<SyntheticSource::Planted> SyntheticSource::planted_at(const std::string& site,
                                                                  std::int64_t channels) const {
  std::vector<Planted> planted;
  const std::uint64_t key = key_of(options_.seed, "outliers/" + site);
  const auto wanted = static_cast<std::size_t>(std::min<std::int64_t>(options_.outliers, channels));
  for (std::uint64_t at = 1; planted.size() < wanted; ++at) {
    const std::uint64_t hash = mix(key + at * kGolden);
    const auto index = static_cast<std::int64_t>(hash % static_cast<std::uint64_t>(channels));
    if (std::any_of(planted.begin(), planted.end(), [index](const Planted& one) { return one.index == index; })) {
      continue;
    }
    const auto uniform = static_cast<float>(static_cast<double>(mix(hash) >> 40) * 0x1p-24);
    const float magnitude = kLeastOutlier * std::pow(kLargestOutlier / kLeastOutlier, uniform);
    planted.push_back({index, (hash >> 63) != 0 ? magnitude : -magnitude});
  }
  return planted;
}

void SyntheticSource::plant(const SourceTensor& tensor, Recipe& recipe) const {
  std::string_view rest;
  const int block = split_block(tensor.name, rest);
  if (block < 0) return;
  const std::int64_t width = sizes_.transformer.width;
  const auto site = [block](const char* name) { return std::to_string(block) + name; };
  // 1 + scale becomes the factor.
  const auto replace_scale = [&](int chunk, const std::string& at) {
    for (const Planted& one : planted_at(at, width)) {
      recipe.replaced.push_back({chunk * width + one.index, one.factor - 1.0f});
    }
  };
  const auto divide_columns = [&](const std::string& at, std::int64_t channels) {
    for (const Planted& one : planted_at(at, channels)) {
      recipe.column_factors.push_back({one.index, 1.0f / one.factor});
    }
  };
  const auto multiply_rows = [&](const std::string& at, std::int64_t channels) {
    for (const Planted& one : planted_at(at, channels)) recipe.row_factors.push_back(one);
  };

  // Chunks of a modulation: shift, scale, gate of the attention, of the feed-forward layer, of the second attention;
  // the last block's context has scale, shift alone.
  if (rest == "norm1.linear.bias") {
    replace_scale(1, site(".image.attention"));
    replace_scale(4, site(".image.feed_forward"));
    if (block < sizes_.transformer.dual_blocks) replace_scale(7, site(".image.attention2"));
  } else if (rest == "norm1_context.linear.bias") {
    const bool last = block == sizes_.transformer.blocks - 1;
    replace_scale(last ? 0 : 1, site(".text.attention"));
    if (!last) replace_scale(4, site(".text.feed_forward"));
  } else if (rest == "attn.to_q.weight" || rest == "attn.to_k.weight" || rest == "attn.to_v.weight") {
    divide_columns(site(".image.attention"), width);
  } else if (rest == "attn2.to_q.weight" || rest == "attn2.to_k.weight" || rest == "attn2.to_v.weight") {
    divide_columns(site(".image.attention2"), width);
  } else if (rest.starts_with("attn.add_") && rest.ends_with("_proj.weight")) {
    divide_columns(site(".text.attention"), width);
  } else if (rest.starts_with("ff")) {
    const bool text = rest.starts_with("ff_context.");
    const std::string input = site(text ? ".text.feed_forward" : ".image.feed_forward");
    const std::string hidden = site(text ? ".text.hidden" : ".image.hidden");
    if (contains(rest, ".net.0.proj.")) {
      multiply_rows(hidden, 4 * width);
      if (rest.ends_with(".weight")) divide_columns(input, width);
    } else if (rest.ends_with(".net.2.weight")) {
      divide_columns(hidden, 4 * width);
    }
  }
}

void SyntheticSource::draw_positions(std::int64_t begin, std::int64_t count, float* out) const {
  const std::int64_t side = sizes_.transformer.position_side, width = sizes_.transformer.width, half = width / 2;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t token = (begin + i) / width, channel = (begin + i) % width;
    const bool column = channel < half;
    const std::int64_t coordinate = column ? token % side : token / side;
    out[i] = position_axis_[static_cast<std::size_t>(coordinate * half + (column ? channel : channel - half))];
  }
}

void SyntheticSource::draw(const Recipe& recipe, const Shape& shape, std::int64_t begin, std::int64_t count,
                           float* out) const {
  if (recipe.position_table) return draw_positions(begin, count, out);
  std::uint64_t counter = recipe.key + static_cast<std::uint64_t>(begin + 1) * kGolden;
  for (std::int64_t i = 0; i < count; ++i, counter += kGolden) {
    out[i] = recipe.mean + recipe.deviation * bell(mix(counter));
  }
  const std::int64_t columns = fan_in(shape), end = begin + count;
  for (const Planted& one : recipe.row_factors) {
    const std::int64_t from = std::max(begin, one.index * columns), to = std::min(end, (one.index + 1) * columns);
    for (std::int64_t i = from; i < to; ++i) out[i - begin] *= one.factor;
  }
  for (const Planted& one : recipe.column_factors) {
    std::int64_t i = begin / columns * columns + one.index;
    if (i < begin) i += columns;
    for (; i < end; i += columns) out[i - begin] *= one.factor;
  }
  for (const Planted& one : recipe.replaced) {
    if (one.index >= begin && one.index < end) out[one.index - begin] = one.factor;
  }
}

Status SyntheticSource::read(std::size_t part, std::size_t tensor, std::int64_t begin, std::int64_t count, DType dtype,
                             std::byte* out) const {
  const Recipe& recipe = recipes_[part][tensor];
  const Shape& shape = parts_[part].tensors[tensor].shape;
  const std::size_t size = dtype_size(dtype);
  std::array<float, kBlock> values;
  for (std::int64_t done = 0; done < count; done += kBlock) {
    const std::int64_t length = std::min(kBlock, count - done);
    draw(recipe, shape, begin + done, length, values.data());
    convert_elements(reinterpret_cast<const std::byte*>(values.data()), DType::kF32,
                     out + static_cast<std::size_t>(done) * size, dtype, length);
  }
  return {};
}

}  // namespace octavo::weights
