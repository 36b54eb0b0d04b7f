#include "quantize/folding.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tensor/convert.h"

namespace octavo::quantize {
namespace {

bool is_power_of_two(float value) {
  int exponent = 0;
  return std::isfinite(value) && std::frexp(value, &exponent) == 0.5f;
}

std::vector<float> inverse(const std::vector<float>& values) {
  std::vector<float> result;
  result.reserve(values.size());
  for (const float value : values) result.push_back(1.0f / value);
  return result;
}

/// factors[begin + i] *= by[i], on ones when there are none yet.
void multiply(std::vector<float>& factors, std::int64_t size, std::int64_t begin, const std::vector<float>& by) {
  if (factors.empty()) factors.assign(static_cast<std::size_t>(size), 1.0f);
  for (std::size_t i = 0; i < by.size(); ++i) factors[static_cast<std::size_t>(begin) + i] *= by[i];
}

Status check(const Site& site, const Recipe& recipe, const LayerRecipe& layer) {
  if (static_cast<std::int64_t>(layer.smooth.size()) != site.channels) {
    return invalid_argument(layer.layer, fmt::format("is smoothed by {} numbers, its input has {} channels",
                                                     layer.smooth.size(), site.channels));
  }
  for (const float value : layer.smooth) {
    if (!is_power_of_two(value)) {
      return invalid_argument(layer.layer, fmt::format("is smoothed by {}, which is no power of two", value));
    }
  }
  for (const std::string& reader : site.readers) {
    const LayerRecipe* other = recipe.find(reader);
    if (other == nullptr || other->smooth != layer.smooth) {
      return invalid_argument(layer.layer, "is smoothed otherwise than " + reader + ", which reads the same input");
    }
  }
  return {};
}

}  // namespace

float nearest_power_of_two(float value) {
  OCTAVO_CHECK(value > 0.0f && std::isfinite(value), "{} has no nearest power of two", value);
  return static_cast<float>(std::exp2(std::round(std::log2(static_cast<double>(value)))));
}

Result<std::unique_ptr<FoldedSource>> FoldedSource::create(const weights::TensorSource& source, const Recipe& recipe) {
  std::unique_ptr<FoldedSource> folded(new FoldedSource(source));
  for (std::size_t part = 0; part < folded->parts_.size(); ++part) {
    if (folded->parts_[part].part != weights::Part::kTransformer) continue;
    const std::vector<Site> sites = sites_of(folded->parts_[part]);
    for (const LayerRecipe& layer : recipe.layers) {
      if (layer.smooth.empty()) continue;
      const Site* site = site_of(sites, layer.layer);
      if (site == nullptr)
        return invalid_argument(layer.layer, "cannot be smoothed: nothing in front of it can be divided");
      OCTAVO_RETURN_IF_ERROR(check(*site, recipe, layer));
      if (site->name() == layer.layer) folded->fold(*site, layer.smooth, part);
    }
  }
  return folded;
}

FoldedSource::Change& FoldedSource::change_of(std::size_t part, const std::string& tensor) {
  const auto& tensors = parts_[part].tensors;
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const weights::SourceTensor& one) { return one.name == tensor; });
  OCTAVO_CHECK(found != tensors.end(), "{} is a site's and does not exist", tensor);
  return changes_[{part, static_cast<std::size_t>(found - tensors.begin())}];
}

void FoldedSource::fold(const Site& site, const std::vector<float>& smooth, std::size_t part) {
  for (const std::string& reader : site.readers) {
    multiply(change_of(part, reader + ".weight").columns, site.channels, 0, smooth);
  }
  const std::vector<float> divided = inverse(smooth);
  if (site.producer == Site::Producer::kActivation) {
    for (const std::string& reader : site.readers) multipliers_[reader] = divided;
    return;
  }
  for (const std::string& maker : site.makers) {
    const auto& tensors = parts_[part].tensors;
    const auto weight = std::find_if(tensors.begin(), tensors.end(),
                                     [&](const weights::SourceTensor& one) { return one.name == maker + ".weight"; });
    const std::int64_t rows = weight->shape[0];
    Change& bias = change_of(part, maker + ".bias");
    for (Change* change : {&change_of(part, maker + ".weight"), &bias}) {
      if (site.producer == Site::Producer::kValues) {
        multiply(change->rows, rows, 0, divided);
      } else {
        multiply(change->rows, rows, site.shift_chunk * site.channels, divided);
        multiply(change->rows, rows, site.scale_chunk * site.channels, divided);
      }
    }
    if (site.producer != Site::Producer::kModulation) continue;
    // A modulation has one scale a site: its ranges do not overlap, but one bias may have several.
    bias.ones.emplace_back(site.scale_chunk * site.channels, site.channels);
    for (auto& tensor : parts_[part].tensors) {
      if (tensor.name == maker + ".bias") tensor.dtype = DType::kF32;
    }
  }
}

std::vector<float> FoldedSource::multiplier(std::string_view layer) const {
  const auto found = multipliers_.find(layer);
  return found == multipliers_.end() ? std::vector<float>() : found->second;
}

Status FoldedSource::read(std::size_t part, std::size_t tensor, std::int64_t begin, std::int64_t count, DType dtype,
                          std::byte* out) const {
  const auto found = changes_.find({part, tensor});
  if (found == changes_.end()) return source_.read(part, tensor, begin, count, dtype, out);
  const Change& change = found->second;
  // As it is stored, then widened: what a source would give in f32 may be finer than what it has.
  const DType stored = source_.parts()[part].tensors[tensor].dtype;
  std::vector<std::byte> bytes(static_cast<std::size_t>(count) * dtype_size(stored));
  OCTAVO_RETURN_IF_ERROR(source_.read(part, tensor, begin, count, stored, bytes.data()));
  std::vector<float> values(static_cast<std::size_t>(count));
  convert_elements(bytes.data(), stored, reinterpret_cast<std::byte*>(values.data()), DType::kF32, count);
  const Shape& shape = parts_[part].tensors[tensor].shape;
  const std::int64_t width = shape.rank() == 1 ? 1 : shape[1];
  for (std::int64_t i = 0; i < count; ++i) {
    const auto row = static_cast<std::size_t>((begin + i) / width),
               column = static_cast<std::size_t>((begin + i) % width);
    const float factor =
        (change.rows.empty() ? 1.0f : change.rows[row]) * (change.columns.empty() ? 1.0f : change.columns[column]);
    float& value = values[static_cast<std::size_t>(i)];
    const bool one = std::any_of(change.ones.begin(), change.ones.end(), [&](const auto& range) {
      return begin + i >= range.first && begin + i < range.first + range.second;
    });
    // In double: the 1 that goes and comes back must not cost the small numbers their bits.
    value = one ? static_cast<float>((1.0 + value) * factor - 1.0) : value * factor;
  }
  convert_elements(reinterpret_cast<const std::byte*>(values.data()), DType::kF32, out, dtype, count);
  return {};
}

}  // namespace octavo::quantize
