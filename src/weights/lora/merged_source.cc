#include "weights/lora/merged_source.h"

#include <algorithm>
#include <cmath>

#include "tensor/convert.h"

namespace octavo::weights {
namespace {

constexpr std::string_view kWeight = ".weight";
constexpr std::size_t kMostListed = 12;
constexpr std::int64_t kColumns = 512;  // of `down` at a time: with a rank of 64 they stay in the second cache

std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kMostListed); ++i) text += (i > 0 ? ", " : "") + names[i];
  if (names.size() > kMostListed) text += fmt::format(" and {} more", names.size() - kMostListed);
  return text;
}

/// A text encoder that a module's name speaks of and the model lacks.
const PartNames* missing_part(std::string_view module, const std::vector<SourcePart>& parts) {
  for (const PartNames& row : kParts) {
    if (row.part == Part::kTransformer || row.part == Part::kVae) continue;
    const std::string number = row.part == Part::kTextEncoder ? "1" : row.part == Part::kTextEncoder2 ? "2" : "3";
    if (!module.starts_with(std::string(row.folder) + ".") && !module.starts_with("lora_te" + number + "_")) continue;
    const bool there =
        std::any_of(parts.begin(), parts.end(), [&row](const auto& one) { return one.part == row.part; });
    if (!there) return &row;
  }
  return nullptr;
}

std::vector<float> floats_of(const TensorView& view, std::int64_t first_row, std::int64_t rows) {
  const std::int64_t inner = view.dim(1);
  std::vector<float> values(static_cast<std::size_t>(rows * inner));
  convert_elements(static_cast<const std::byte*>(view.data()) +
                       static_cast<std::size_t>(first_row * inner) * dtype_size(view.dtype()),
                   view.dtype(), reinterpret_cast<std::byte*>(values.data()), DType::kF32, rows * inner);
  return values;
}

}  // namespace

Status MergedSource::add(const LoraFile& file, float strength) {
  const std::string subject = file.path().string();
  if (!std::isfinite(strength)) return invalid_argument(subject, "its strength is not a finite number");
  const auto names = lora_names(parts());
  std::vector<std::string> unknown = file.unknown();
  std::size_t known = 0;
  for (const LoraModule& module : file.modules()) {
    const auto targets = names.find(module.name);
    if (targets == names.end()) {
      if (const PartNames* row = missing_part(module.name, parts())) {
        return invalid_argument(subject, fmt::format("{} belongs to the {}, which the model lacks: give it with {}",
                                                     module.name, row->title, row->flag));
      }
      unknown.push_back(module.name);
      continue;
    }
    ++known;
    for (const LoraTarget& target : targets->second) {
      const SourceTensor& tensor = parts()[target.part].tensors[target.tensor];
      const std::int64_t rows = tensor.shape[0], inner = tensor.shape.element_count() / rows;
      if (static_cast<int>(targets->second.size()) != target.slices || module.up.dim(0) != rows * target.slices ||
          module.down.dim(1) != inner) {
        return invalid_argument(
            subject, fmt::format("is of another model: {} is [{}, {}], the model's {} is [{}, {}]", module.name,
                                 module.up.dim(0), module.down.dim(1), tensor.name, rows * target.slices, inner));
      }
      const std::string_view component = names_of(parts()[target.part].part).folder;
      const std::string layer = tensor.name.substr(0, tensor.name.size() - kWeight.size());
      OCTAVO_ASSIGN_OR_RETURN(const float scale, file.scale_of(module, component, layer));
      Update update{.down = module.down, .scale = strength * scale};
      update.up = module.up.slice(0, target.slice * rows, rows);
      if (target.swap_halves) {
        update.up_second = update.up.slice(0, 0, rows / 2);
        update.up = update.up.slice(0, rows / 2, rows / 2);
      }
      updates_[{target.part, target.tensor}].push_back(update);
    }
  }
  if (unknown.empty()) return {};
  if (known == 0) {
    const std::string foreign = foreign_model(unknown.front());
    return invalid_argument(
        subject,
        fmt::format("is no LoRA of Stable Diffusion 3.5: none of its {} modules is the model's, the first is {}{}",
                    unknown.size(), unknown.front(), foreign.empty() ? "" : ", a name of " + foreign));
  }
  return invalid_argument(
      subject, fmt::format("holds {} that the model has not: {}",
                           unknown.size() == 1 ? "a name" : fmt::format("{} names", unknown.size()), listed(unknown)));
}

Result<std::unique_ptr<MergedSource>> MergedSource::create(const TensorSource& base,
                                                           const std::vector<LoraStrength>& loras) {
  std::unique_ptr<MergedSource> merged(new MergedSource(base));
  for (const LoraStrength& lora : loras) {
    OCTAVO_ASSIGN_OR_RETURN(LoraFile file, LoraFile::open(lora.path));
    OCTAVO_RETURN_IF_ERROR(merged->add(file, lora.strength));
    merged->files_.push_back(std::move(file));
  }
  return merged;
}

void MergedSource::add_rows(const Update& update, const Shape& shape, std::int64_t begin, std::int64_t count,
                            float* delta) {
  const std::int64_t inner = shape.element_count() / shape[0], rank = update.down.dim(0);
  const std::int64_t first = begin / inner, last = (begin + count - 1) / inner;
  const auto down = floats_of(update.down, 0, rank);
  std::vector<float> up;
  for (std::int64_t row = first; row <= last; ++row) {
    const std::int64_t half = update.up.dim(0);
    const auto one = row < half ? floats_of(update.up, row, 1) : floats_of(update.up_second, row - half, 1);
    up.insert(up.end(), one.begin(), one.end());
  }
  for (float& value : up) value *= update.scale;
  for (std::int64_t column = 0; column < inner; column += kColumns) {
    for (std::int64_t row = first; row <= last; ++row) {
      // Elements of this row and these columns that were asked for.
      const std::int64_t from = std::max(begin, row * inner + column);
      const std::int64_t to = std::min(begin + count, row * inner + std::min(column + kColumns, inner));
      if (from >= to) continue;
      float* out = delta + (from - begin);
      const std::int64_t length = to - from, at = from - row * inner;
      for (std::int64_t k = 0; k < rank; ++k) {
        const float factor = up[static_cast<std::size_t>((row - first) * rank + k)];
        const float* values = down.data() + k * inner + at;
        for (std::int64_t i = 0; i < length; ++i) out[i] += factor * values[i];
      }
    }
  }
}

Status MergedSource::read(std::size_t part, std::size_t tensor, std::int64_t begin, std::int64_t count, DType dtype,
                          std::byte* out) const {
  const auto found = updates_.find({part, tensor});
  if (found == updates_.end()) return base_.read(part, tensor, begin, count, dtype, out);
  if (count == 0) return {};
  std::vector<float> values(static_cast<std::size_t>(count)), delta(static_cast<std::size_t>(count), 0.0f);
  OCTAVO_RETURN_IF_ERROR(
      base_.read(part, tensor, begin, count, DType::kF32, reinterpret_cast<std::byte*>(values.data())));
  for (const Update& update : found->second) {
    add_rows(update, parts()[part].tensors[tensor].shape, begin, count, delta.data());
  }
  for (std::size_t i = 0; i < values.size(); ++i) values[i] += delta[i];
  convert_elements(reinterpret_cast<const std::byte*>(values.data()), DType::kF32, out, dtype, count);
  return {};
}

}  // namespace octavo::weights
