#include "weights/weight_store.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "weights/safetensors.h"

namespace octavo::weights {
namespace {

constexpr std::size_t kMostListed = 12;

std::string list(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kMostListed); ++i) text += (i == 0 ? "" : ", ") + names[i];
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

}  // namespace

std::optional<std::int64_t> first_not_finite(const TensorView& view) {
  switch (view.dtype()) {
    case DType::kF32:
      return first_with_exponent<std::uint32_t>(view, 0x7F800000u);
    case DType::kF16:
      return first_with_exponent<std::uint16_t>(view, 0x7C00u);
    case DType::kBF16:
      return first_with_exponent<std::uint16_t>(view, 0x7F80u);
    default:
      return std::nullopt;
  }
}

Result<WeightStore> WeightStore::open(std::string label, std::vector<std::shared_ptr<const SafetensorsFile>> files) {
  WeightStore store;
  store.label_ = std::move(label);
  for (const auto& file : files) {
    for (const auto& [name, info] : file->tensors()) {
      Entry entry;
      entry.shape = info.shape;
      entry.dtype = info.dtype;
      entry.file = file.get();
      const auto [place, inserted] = store.entries_.emplace(name, std::move(entry));
      if (!inserted) {
        return data_corruption(file->path().string(),
                               "tensor " + name + " is also in " + place->second.file->path().string());
      }
    }
  }
  store.files_ = std::move(files);
  return store;
}

TensorView WeightStore::take(const std::string& name, Entry& entry, const Shape& shape) {
  entry.used = true;
  if (!(entry.shape == shape)) {
    wrong_.push_back(fmt::format("{} is {}, expected {}", name, entry.shape.to_string(), shape.to_string()));
    return {};
  }
  const TensorInfo& info = entry.file->tensors().at(name);
  auto view = entry.file->view(info);
  if (!view.ok() || (view->dtype() != DType::kF32 && view->dtype() != DType::kF16 && view->dtype() != DType::kBF16)) {
    wrong_.push_back(fmt::format("{} is {}, expected F32, F16 or BF16", name, entry.dtype));
    return {};
  }
  if (check_only_) return {};
  if (reinterpret_cast<std::uintptr_t>(view->data()) % dtype_size(view->dtype()) != 0) {
    // A header whose length is no multiple of the element size: legal, rare, and no kernel reads it as it lies.
    realigned_.push_back(std::make_unique<std::byte[]>(view->byte_count()));
    std::memcpy(realigned_.back().get(), view->data(), view->byte_count());
    view = TensorView(static_cast<void*>(realigned_.back().get()), view->dtype(), view->shape());
  }
  taken_.emplace_back(name, *view);
  return *view;
}

TensorView WeightStore::require(const std::string& name, const Shape& shape) {
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    missing_.push_back(name + " " + shape.to_string());
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
  const auto bytes = found->second.file->bytes(found->second.file->tensors().at(name));
  return bytes.first(std::min(count, bytes.size()));
}

const Shape* WeightStore::shape_of(const std::string& name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : &found->second.shape;
}

void WeightStore::ignore(const std::string& name) {
  const auto found = entries_.find(name);
  if (found != entries_.end()) found->second.ignored = true;
}

std::vector<std::string> WeightStore::names() const {
  std::vector<std::string> result;
  for (const auto& [name, entry] : entries_) result.push_back(name);
  return result;
}

std::size_t WeightStore::byte_count() const {
  std::size_t total = 0;
  for (const auto& file : files_) total += file->data_byte_count();
  return total;
}

Status WeightStore::finish(std::size_t scan_limit_bytes) {
  std::vector<std::string> unused;
  for (const auto& [name, entry] : entries_) {
    if (!entry.used && !entry.ignored) unused.push_back(name);
  }
  std::string problems;
  const auto add = [&problems](std::string_view kind, const std::vector<std::string>& names) {
    if (names.empty()) return;
    problems += fmt::format("{}{} {}: {}", problems.empty() ? "" : "; ", names.size(), kind, list(names));
  };
  add("missing", missing_);
  add("wrong", wrong_);
  add("not part of this model", unused);
  if (!problems.empty()) return data_corruption(label_, problems);

  if (byte_count() <= scan_limit_bytes) {
    for (const auto& file : files_) file->prefetch();
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
