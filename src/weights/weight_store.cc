#include "weights/weight_store.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <optional>
#include <set>
#include <tuple>

#include "tensor/float8.h"

namespace octavo::weights {
namespace {

constexpr std::size_t kMostListed = 12;

std::string list(const auto& names) {
  std::string text;
  std::size_t listed = 0;
  for (auto name = names.begin(); name != names.end() && listed < kMostListed; ++name, ++listed) {
    text += (listed == 0 ? "" : ", ") + *name;
  }
  if (names.size() > kMostListed) text += fmt::format(" and {} more", names.size() - kMostListed);
  return text;
}

/// Index of the first element whose exponent bits are all set (infinity or NaN).
template <typename Word>
std::optional<std::int64_t> first_with_exponent(const TensorView& view, Word exponent_mask) {
  const auto* bytes = static_cast<const std::byte*>(view.data());
  const std::int64_t count = view.element_count();
  const auto bad = [bytes, exponent_mask](std::int64_t index) {
    Word word;  // memcpy: a file may hold the tensor at an odd address
    std::memcpy(&word, bytes + static_cast<std::size_t>(index) * sizeof(Word), sizeof(Word));
    return static_cast<Word>(word & exponent_mask) == exponent_mask;
  };
  constexpr std::int64_t kBlock = 4096;
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t end = std::min(begin + kBlock, count);
    Word any = 0;  // a branch-free inner loop, which the compiler vectorises
    for (std::int64_t i = begin; i < end; ++i) any |= static_cast<Word>(bad(i));
    if (any == 0) continue;
    for (std::int64_t i = begin; i < end; ++i) {
      if (bad(i)) return i;
    }
  }
  return std::nullopt;
}

/// Through a table of all 256 codes: the products with the scale are made and rounded once each.
void decode_fp8(std::span<const std::byte> stored, DType dtype, const StoredTensor& source, BFloat16* values) {
  const auto& codes = dtype == DType::kE4M3 ? kE4M3Values : kE5M2Values;
  std::array<BFloat16, 256> table;
  for (std::size_t code = 0; code < table.size(); ++code) {
    const float value = codes[code] * source.scale.value_or(1.0f);
    table[code] = to_bfloat16(source.not_a_number_is_zero && std::isnan(value) ? 0.0f : value);
  }
  for (std::size_t i = 0; i < stored.size(); ++i) values[i] = table[static_cast<std::uint8_t>(stored[i])];
}

}  // namespace

std::optional<std::int64_t> first_not_finite(const TensorView& view) {
  switch (view.dtype()) {
    case DType::kF32:
      return first_with_exponent<std::uint32_t>(view, 0x7F800000u);
    case DType::kF16:
      return first_with_exponent<std::uint16_t>(view, 0x7C00u);
    case DType::kBF16:
      return first_with_exponent<std::uint16_t>(view, 0x7F80u);
    case DType::kE4M3:
      return first_with_exponent<std::uint8_t>(view, 0x7Fu);  // its one NaN
    case DType::kE5M2:
      return first_with_exponent<std::uint8_t>(view, 0x7Cu);
    default:
      return std::nullopt;
  }
}

Result<WeightStore> WeightStore::open(std::string label, std::vector<std::shared_ptr<const SafetensorsFile>> files) {
  PartSources sources;
  for (const auto& file : files) {
    for (const auto& [name, info] : file->tensors()) {
      StoredTensor source{.file = file.get()};
      source.place.stored = name;
      const auto [place, inserted] = sources.tensors.emplace(name, std::move(source));
      if (!inserted) {
        return data_corruption(file->path().string(),
                               "tensor " + name + " is also in " + place->second.file->path().string());
      }
    }
  }
  return open(std::move(label), std::move(files), std::move(sources));
}

WeightStore WeightStore::open(std::string label, std::vector<std::shared_ptr<const SafetensorsFile>> files,
                              PartSources sources) {
  WeightStore store;
  store.label_ = std::move(label);
  for (auto& [name, source] : sources.tensors) {
    Entry entry;
    const Shape& stored = source.file->tensors().at(source.place.stored).shape;
    const auto shape = shape_from_original(stored, source.place);
    entry.shape = shape.value_or(stored);
    entry.possible = shape.has_value();
    entry.source = std::move(source);
    store.entries_.emplace(name, std::move(entry));
  }
  sources.tensors.clear();
  store.sources_ = std::move(sources);
  store.files_ = std::move(files);
  return store;
}

std::span<const std::byte> WeightStore::stored_bytes(const Entry& entry) const {
  if (entry.source.file == nullptr) {
    return {static_cast<const std::byte*>(entry.owned.data()), entry.owned.byte_count()};
  }
  const auto whole = entry.source.file->bytes(entry.source.file->tensors().at(entry.source.place.stored));
  const Placement& place = entry.source.place;
  const std::size_t rows = whole.size() / static_cast<std::size_t>(place.slice_count);
  return whole.subspan(rows * static_cast<std::size_t>(place.slice), rows);
}

std::byte* WeightStore::allocate(std::size_t byte_count) {
  changed_.push_back(std::make_unique_for_overwrite<std::byte[]>(byte_count));
  return changed_.back().get();
}

void WeightStore::supply_identity(const std::string& name, std::int64_t side) {
  if (entries_.contains(name)) return;
  const Shape shape{side, side};
  const auto count = static_cast<std::size_t>(shape.element_count());
  std::byte* memory = allocate(count * sizeof(Float16));
  const TensorView view(static_cast<void*>(memory), DType::kF16, shape);
  const Float16 one = to_float16(1.0f);
  for (std::size_t i = 0; i < count; ++i) {
    view.as<Float16>()[i] = i % (static_cast<std::size_t>(side) + 1) == 0 ? one : Float16{};
  }
  entries_.emplace(name, Entry{.shape = shape, .owned = view});
}

bool WeightStore::has_shape(const std::string& name, const Entry& entry, const Shape& shape) {
  if (entry.possible && entry.shape == shape) return true;
  const StoredTensor& source = entry.source;
  const auto [own_name, own_shape, wanted] =
      source.file == nullptr ? std::tuple(name, entry.shape, shape)
                             : std::tuple(source.place.stored, source.file->tensors().at(source.place.stored).shape,
                                          shape_in_original(shape, source.place));
  wrong_.push_back(fmt::format("{} is {}, expected {}", own_name, own_shape.to_string(), wanted.to_string()));
  return false;
}

TensorView WeightStore::copy_beside(const std::string& name) {
  for (const auto& file : files_) {
    const auto found = file->tensors().find(name);
    if (found == file->tensors().end()) continue;
    const auto bytes = file->bytes(found->second);
    std::byte* copy = allocate(bytes.size());
    std::memcpy(copy, bytes.data(), bytes.size());
    return {static_cast<void*>(copy), *readable_dtype(found->second.dtype), found->second.shape};
  }
  return {};
}

QuantizedWeight WeightStore::read_codes(const std::string& layer, const Entry& entry) {
  // What shapes and types there are, read_provenance() has looked at.
  const QuantizationProvenance& provenance = *sources_.provenance;
  const TensorInfo& info = entry.source.file->tensors().at(entry.source.place.stored);
  QuantizedWeight result;
  result.weight.codes = TensorView(stored_bytes(entry).data(), *readable_dtype(info.dtype), entry.shape);
  const TensorView scales = copy_beside(layer + std::string(kNewWeightScale));
  result.weight.grain = scales.rank() == 1   ? ScaleGrain::kTensor
                        : scales.dim(1) == 1 ? ScaleGrain::kRow
                                             : ScaleGrain::kBlock128;
  result.weight.dequant_scale =
      scales.reshape(scale_shape(result.weight.grain, result.weight.rows(), result.weight.inner()));
  result.activations = provenance.activations_of(layer);
  result.activation_format = provenance.activation_format;
  result.input_scale = copy_beside(layer + std::string(kNewInputScale));
  result.input_multiplier = copy_beside(layer + std::string(kInputMultiplier));
  result.outlier_index = copy_beside(layer + std::string(kOutlierIndex));
  result.outlier_weight = copy_beside(layer + std::string(kOutlierWeight));
  return result;
}

bool WeightStore::is_quantized(const std::string& layer) const {
  const auto found = entries_.find(layer + ".weight");
  return found != entries_.end() && found->second.source.codes;
}

std::optional<QuantizedWeight> WeightStore::require_quantized(const std::string& layer, const Shape& shape) {
  OCTAVO_CHECK(is_quantized(layer), "{} is not quantised", layer);
  Entry& entry = entries_.find(layer + ".weight")->second;
  entry.used = true;
  if (!has_shape(layer + ".weight", entry, shape) || check_only_) return std::nullopt;
  QuantizedWeight result = read_codes(layer, entry);
  taken_.emplace_back(entry.source.place.stored, result.weight.codes);
  if (result.outlier_weight.defined()) {
    taken_.emplace_back(layer + std::string(kOutlierWeight), result.outlier_weight);
  }
  return result;
}

TensorView WeightStore::take(const std::string& name, Entry& entry, const Shape& shape) {
  entry.used = true;
  const StoredTensor& source = entry.source;
  if (!has_shape(name, entry, shape)) return {};
  if (source.file == nullptr) return check_only_ ? TensorView() : entry.owned;
  const TensorInfo& info = source.file->tensors().at(source.place.stored);
  const std::optional<DType> dtype = source.read_as ? source.read_as : readable_dtype(info.dtype);
  const bool fp8 = dtype == DType::kE4M3 || dtype == DType::kE5M2;
  if (!fp8 && !source.codes && dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) {
    wrong_.push_back(fmt::format("{} is {}, expected F32, F16, BF16 or FP8", source.place.stored, info.dtype));
    return {};
  }
  if (check_only_) return {};
  const auto stored = stored_bytes(entry);
  TensorView view;
  if (source.codes) {
    view = TensorView(static_cast<void*>(allocate(stored.size() * sizeof(BFloat16))), DType::kBF16, shape);
    widen(read_codes(name.substr(0, name.size() - std::string_view(".weight").size()), entry), view);
  } else if (fp8) {
    view = TensorView(static_cast<void*>(allocate(stored.size() * sizeof(BFloat16))), DType::kBF16, shape);
    decode_fp8(stored, *dtype, source, view.as<BFloat16>());
  } else {
    view = TensorView(static_cast<const void*>(stored.data()), *dtype, shape);
    if (reinterpret_cast<std::uintptr_t>(stored.data()) % dtype_size(*dtype) != 0 && !source.place.swap_halves) {
      // A header whose length is no multiple of the element size: legal, rare, and no kernel reads it as it lies.
      std::byte* copy = allocate(stored.size());
      std::memcpy(copy, stored.data(), stored.size());
      view = TensorView(static_cast<void*>(copy), *dtype, shape);
    }
  }
  if (source.place.swap_halves) {
    const std::size_t half = view.byte_count() / 2;
    const auto* from = static_cast<const std::byte*>(view.data());
    std::byte* copy = allocate(2 * half);
    std::memcpy(copy, from + half, half);
    std::memcpy(copy + half, from, half);
    view = TensorView(static_cast<void*>(copy), view.dtype(), shape);
  }
  taken_.emplace_back(source.place.stored, view);
  return view;
}

TensorView WeightStore::require(const std::string& name, const Shape& shape) {
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    const std::string own = sources_.stored_name(name) + " " + sources_.stored_shape(name, shape).to_string();
    // q, k and v of one tensor are missed three times.
    if (std::find(missing_.begin(), missing_.end(), own) == missing_.end()) missing_.push_back(own);
    return {};
  }
  return take(name, found->second, shape);
}

TensorView WeightStore::optional(const std::string& name, const Shape& shape) {
  const auto found = entries_.find(name);
  return found == entries_.end() ? TensorView() : take(name, found->second, shape);
}

bool WeightStore::contains(const std::string& name) const { return entries_.contains(name); }

std::span<const std::byte> WeightStore::first_bytes(const std::string& name, std::size_t count) const {
  const auto found = entries_.find(name);
  OCTAVO_CHECK(found != entries_.end(), "no tensor {}", name);
  const auto bytes = stored_bytes(found->second);
  return bytes.first(std::min(count, bytes.size()));
}

const Shape* WeightStore::shape_of(const std::string& name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : &found->second.shape;
}

std::string WeightStore::stored_dtype(const std::string& name) const {
  const auto found = entries_.find(name);
  OCTAVO_CHECK(found != entries_.end(), "no tensor {}", name);
  const StoredTensor& source = found->second.source;
  return source.file == nullptr ? "F16" : source.file->tensors().at(source.place.stored).dtype;
}

void WeightStore::ignore(const std::string& name) {
  const auto found = entries_.find(name);
  if (found != entries_.end()) found->second.ignored = true;
}

std::string WeightStore::own_name(const std::string& name) const {
  const auto found = entries_.find(name);
  const bool stored = found != entries_.end() && found->second.source.file != nullptr;
  return stored ? found->second.source.place.stored : sources_.stored_name(name);
}

std::vector<std::string> WeightStore::names() const {
  std::vector<std::string> result;
  for (const auto& [name, entry] : entries_) result.push_back(name);
  return result;
}

std::size_t WeightStore::byte_count() const {
  std::size_t total = 0;
  for (const auto& [name, entry] : entries_) {
    if (entry.source.file != nullptr) total += stored_bytes(entry).size();
  }
  return total;
}

Status WeightStore::finish(std::size_t scan_limit_bytes) {
  std::set<std::string> unused(sources_.unknown.begin(), sources_.unknown.end());
  for (const auto& [name, entry] : entries_) {
    if (!entry.used && !entry.ignored && entry.source.file != nullptr) unused.insert(entry.source.place.stored);
  }
  std::string problems;
  const auto add = [&problems](std::string_view kind, const auto& names) {
    if (names.empty()) return;
    problems += fmt::format("{}{} {}: {}", problems.empty() ? "" : "; ", names.size(), kind, list(names));
  };
  add("missing", missing_);
  add("wrong", wrong_);
  add("not part of this model", unused);
  if (!problems.empty()) return data_corruption(label_, problems);

  if (byte_count() <= scan_limit_bytes) {
    for (const auto& [name, entry] : entries_) {
      if (entry.used && entry.source.file != nullptr) prefetch(stored_bytes(entry));
    }
    for (const auto& [name, view] : taken_) {
      if (const auto index = first_not_finite(view)) {
        return data_corruption(label_,
                               fmt::format("tensor {} holds NaN or infinity, first at element {}", name, *index));
      }
    }
  }
  taken_.clear();
  return {};
}

}  // namespace octavo::weights
