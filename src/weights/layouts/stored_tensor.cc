#include "weights/layouts/stored_tensor.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <cmath>
#include <cstring>
#include <set>

namespace octavo::weights {
namespace {

constexpr int kMostBlocks = 1000;  // far above any model: a header is not trusted with memory
constexpr std::size_t kMostQuantizationBytes = 64 << 20;

/// One more than the largest number behind `before`.
int count_numbers(const std::set<std::string_view>& names, std::string_view before) {
  int count = 0;
  for (auto at = names.lower_bound(before); at != names.end() && at->starts_with(before); ++at) {
    const std::string_view rest = at->substr(before.size());
    int number = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
    if (error == std::errc() && number >= 0 && number < kMostBlocks) count = std::max(count, number + 1);
  }
  return count;
}

/// The one number of a scale tensor.
Result<float> read_scale(const SafetensorsFile& file, const std::string& name, const TensorInfo& info) {
  const std::string subject = file.path().string();
  if (info.shape.element_count() != 1) {
    return invalid_argument(subject, fmt::format("{} is {}: scales of rows or blocks (mxfp8, nvfp4) are not read by "
                                                 "this version; use a file with one scale a layer, or a 16-bit one",
                                                 name, info.shape.to_string()));
  }
  const auto bytes = file.bytes(info);
  float value = 0;
  if (info.dtype == "F32") {
    std::memcpy(&value, bytes.data(), sizeof value);
  } else if (info.dtype == "F16" || info.dtype == "BF16") {
    std::uint16_t bits = 0;
    std::memcpy(&bits, bytes.data(), sizeof bits);
    value = info.dtype == "F16" ? to_float(Float16{bits}) : to_float(BFloat16{bits});
  } else {
    return data_corruption(subject, fmt::format("{} is {}, a scale is F32", name, info.dtype));
  }
  if (!std::isfinite(value) || value <= 0) {
    return data_corruption(subject, fmt::format("{} holds {}, which is no scale", name, value));
  }
  return value;
}

/// How a layer says its values are stored; the old form says nothing.
Result<std::optional<DType>> fp8_format(const boost::json::value& entry, const std::string& subject,
                                        const std::string& layer) {
  const auto* format = entry.is_object() ? entry.get_object().if_contains("format") : nullptr;
  if (format == nullptr || !format->is_string()) {
    return data_corruption(subject, "the quantisation of " + layer + " names no format");
  }
  const std::string_view word = format->get_string();
  if (word == "float8_e4m3fn") return std::optional(DType::kE4M3);
  if (word == "float8_e5m2") return std::optional(DType::kE5M2);
  return invalid_argument(subject, fmt::format("{} is stored as {}, which this version does not read; use the "
                                               "fp8_scaled or a 16-bit file of the same model",
                                               layer, std::string(word)));
}

Result<boost::json::value> parse_json(std::string_view text, const std::string& subject, const std::string& what) {
  boost::json::parse_options options;
  options.max_depth = 8;
  boost::system::error_code error;
  if (text.size() > kMostQuantizationBytes) return data_corruption(subject, what + " is too long");
  auto value = boost::json::parse(text, error, {}, options);
  if (error) return data_corruption(subject, what + " is not valid JSON: " + error.message());
  return value;
}

/// What the files say of quantised layers; names whole, with prefix.
struct Quantization {
  std::map<std::string, float, std::less<>> scales;   // by layer
  std::map<std::string, DType, std::less<>> formats;  // by layer
  std::set<std::string, std::less<>> names;           // tensors that are no weights
};

Status read_metadata(const SafetensorsFile& file, const std::string& prefix, Quantization& found) {
  const auto text = file.metadata().find(kQuantizationMetadata);
  if (text == file.metadata().end()) return {};
  const std::string subject = file.path().string();
  OCTAVO_ASSIGN_OR_RETURN(const auto value, parse_json(text->second, subject, std::string(kQuantizationMetadata)));
  const auto* layers = value.is_object() ? value.get_object().if_contains("layers") : nullptr;
  if (layers == nullptr || !layers->is_object()) {
    return data_corruption(subject, std::string(kQuantizationMetadata) + " has no layers");
  }
  for (const auto& member : layers->get_object()) {
    const std::string layer(member.key());
    // The names in the metadata may lack the part's prefix.
    const bool whole = file.tensors().contains(layer + ".weight");
    if (whole && !layer.starts_with(prefix)) continue;
    const std::string name = whole ? layer : prefix + layer;
    if (!file.tensors().contains(name + ".weight")) continue;  // a layer of another part
    OCTAVO_ASSIGN_OR_RETURN(const auto format, fp8_format(member.value(), subject, name));
    found.formats[name] = *format;
  }
  return {};
}

Result<Quantization> read_quantization(const std::string& prefix,
                                       const std::vector<std::shared_ptr<const SafetensorsFile>>& files) {
  Quantization found;
  for (const auto& file : files) {
    OCTAVO_RETURN_IF_ERROR(read_metadata(*file, prefix, found));
    for (auto at = file->tensors().lower_bound(prefix); at != file->tensors().end() && at->first.starts_with(prefix);
         ++at) {
      const std::string& name = at->first;  // clang 14 captures no structured bindings
      const TensorInfo& info = at->second;
      const auto layer = [&](std::string_view ending) { return name.substr(0, name.size() - ending.size()); };
      if (std::string_view(name).substr(prefix.size()) == kScaledFp8Marker || name.ends_with(kOldInputScale) ||
          name.ends_with(kNewInputScale)) {
        found.names.insert(name);  // of use to FP8 products alone
      } else if (name.ends_with(kOldWeightScale) || name.ends_with(kNewWeightScale)) {
        const auto ending = name.ends_with(kOldWeightScale) ? kOldWeightScale : kNewWeightScale;
        OCTAVO_ASSIGN_OR_RETURN(const float scale, read_scale(*file, name, info));
        if (!found.scales.emplace(layer(ending), scale).second) {
          return data_corruption(file->path().string(), layer(ending) + " has two scales");
        }
        found.names.insert(name);
      } else if (name.ends_with(kComfyQuant)) {
        const auto bytes = file->bytes(info);
        const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        OCTAVO_ASSIGN_OR_RETURN(const auto value, parse_json(text, file->path().string(), name));
        OCTAVO_ASSIGN_OR_RETURN(const auto format, fp8_format(value, file->path().string(), layer(kComfyQuant)));
        found.formats[layer(kComfyQuant)] = *format;
        found.names.insert(name);
      }
    }
  }
  return found;
}

/// What lies beside the codes of a quantised part.
bool is_helper(std::string_view name) {
  for (const auto ending : {kNewWeightScale, kNewInputScale, kInputMultiplier, kOutlierIndex, kOutlierWeight}) {
    if (name.ends_with(ending)) return true;
  }
  return false;
}

bool is_fp8(std::string_view dtype) { return dtype == "F8_E4M3" || dtype == "F8_E5M2"; }

}  // namespace

std::string PartSources::stored_name(const std::string& canonical) const {
  if (layout == Layout::kDiffusers) return prefix + canonical;
  const auto place = placement_in_original(part, canonical, name_sizes);
  return prefix + (place ? place->stored : canonical);
}

Shape PartSources::stored_shape(const std::string& canonical, const Shape& shape) const {
  const auto place = layout == Layout::kOriginal ? placement_in_original(part, canonical, name_sizes) : std::nullopt;
  return place ? shape_in_original(shape, *place) : shape;
}

Result<PartSources> map_part(Part part, Layout layout, const std::string& prefix,
                             const std::vector<std::shared_ptr<const SafetensorsFile>>& files) {
  PartSources sources{.part = part, .layout = layout, .prefix = prefix};
  OCTAVO_ASSIGN_OR_RETURN(sources.provenance, read_provenance(files));
  const bool quantised = sources.provenance.has_value();
  if (quantised && (layout != Layout::kDiffusers || !prefix.empty())) {
    return invalid_argument(files.front()->path().string(),
                            "is a quantised part: it is read where it was written, in its diffusers folder");
  }
  Quantization quantization;
  if (!quantised) {
    OCTAVO_ASSIGN_OR_RETURN(quantization, read_quantization(prefix, files));
  }
  std::set<std::string_view> bare;
  for (const auto& file : files) {
    for (auto at = file->tensors().lower_bound(prefix); at != file->tensors().end() && at->first.starts_with(prefix);
         ++at) {
      bare.insert(std::string_view(at->first).substr(prefix.size()));
    }
  }
  sources.name_sizes.blocks =
      count_numbers(bare, layout == Layout::kOriginal ? "joint_blocks." : "transformer_blocks.");
  if (const int levels = count_numbers(bare, "decoder.up."); levels > 0) sources.name_sizes.vae_levels = levels;

  bool any_fp8 = false, any_scaled = false;
  std::set<std::string_view> scaled_layers;
  for (const auto& file : files) {
    for (auto at = file->tensors().lower_bound(prefix); at != file->tensors().end() && at->first.starts_with(prefix);
         ++at) {
      const auto& [name, info] = *at;
      if (quantization.names.contains(name) || (quantised && is_helper(name))) continue;
      StoredTensor source{.file = file.get()};
      source.place.stored = name;
      source.codes = quantised && (is_fp8(info.dtype) || info.dtype == "I8");
      const std::string stored = name.substr(prefix.size());
      const std::string layer = name.ends_with(".weight") ? name.substr(0, name.size() - 7) : std::string();
      const auto format = quantization.formats.find(layer);
      const auto scale = quantization.scales.find(layer);
      if (format != quantization.formats.end() && info.dtype == "U8") source.read_as = format->second;
      if (is_fp8(info.dtype) || source.read_as) {
        any_fp8 = true;
        source.not_a_number_is_zero =
            part == Part::kTextEncoder3 && (stored == "shared.weight" || stored == "encoder.embed_tokens.weight");
      }
      if (scale != quantization.scales.end()) {
        if (!is_fp8(info.dtype) && !source.read_as) {
          return data_corruption(file->path().string(),
                                 fmt::format("{} is {} and has a scale; scales belong to FP8", name, info.dtype));
        }
        source.scale = scale->second;
        scaled_layers.insert(scale->first);
        any_scaled = true;
      }
      if (layout == Layout::kDiffusers) {
        if (!sources.tensors.emplace(stored, std::move(source)).second) {
          return data_corruption(file->path().string(), "tensor " + name + " is also in another file of " +
                                                            std::string(names_of(part).folder));
        }
        continue;
      }
      const auto canonical = canonical_in_original(part, stored, sources.name_sizes);
      if (canonical.empty()) sources.unknown.push_back(name);
      for (const std::string& one : canonical) {
        source.place = *placement_in_original(part, one, sources.name_sizes);
        source.place.stored = name;
        if (info.shape.rank() != 4) source.place.as_convolution = false;  // some writers keep it as a product's weight
        if (!sources.tensors.emplace(one, source).second) {
          return data_corruption(file->path().string(), "tensor " + name + " is also in another file");
        }
      }
    }
  }
  for (const auto& [layer, scale] : quantization.scales) {
    if (!scaled_layers.contains(layer)) {
      return data_corruption(files.front()->path().string(), "has a scale for " + layer + ", which has no weight");
    }
  }
  sources.quantization = quantised ? sources.provenance->in_words() : any_scaled ? "scaled FP8" : any_fp8 ? "FP8" : "";
  return sources;
}

}  // namespace octavo::weights
