#include "weights/export/checkpoint_source.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cstring>
#include <optional>
#include <set>

#include "tensor/convert.h"
#include "weights/checkpoint.h"
#include "weights/export/infer_config.h"
#include "weights/export/json_text.h"
#include "weights/quantization/provenance.h"
#include "weights/safetensors_writer.h"

namespace octavo::weights {
namespace fs = std::filesystem;
namespace {

constexpr std::int64_t kBlock = 1024;  // scaled values that pass through a buffer on the stack

constexpr std::string_view kSharedEmbedding = "shared.weight";
constexpr std::string_view kSecondEmbedding = "encoder.embed_tokens.weight";
constexpr std::string_view kProjection = "text_projection.weight";

std::optional<DType> floating_dtype(std::string_view word) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kE4M3, DType::kE5M2}) {
    if (safetensors_word(dtype) == word) return dtype;
  }
  return std::nullopt;
}

/// What a loader has no use for: buffers of other programs, and what belongs to a scaled weight beside its scale.
bool is_ignored(std::string_view name) {
  return name == "logit_scale" || name.ends_with(".position_ids") || name == kScaledFp8Marker ||
         name.ends_with(kOldWeightScale) || name.ends_with(kNewWeightScale) || name.ends_with(kOldInputScale) ||
         name.ends_with(kNewInputScale) || name.ends_with(kComfyQuant);
}

/// The part of a file whose names have no prefix, told as ComfyUI does; small CLIP-G models by the file's own word.
std::optional<Part> part_of_bare_file(const SafetensorsFile& file, const boost::json::object& configs) {
  if (configs.size() == 1) return part_of_folder(configs.begin()->key());
  const auto has = [&file](std::string_view name) { return file.tensors().contains(name); };
  if (has("x_embedder.proj.weight") || has("pos_embed.proj.weight")) return Part::kTransformer;
  if (has("decoder.conv_in.weight")) return Part::kVae;
  if (has("text_model.encoder.layers.30.mlp.fc1.weight")) return Part::kTextEncoder2;
  if (has("text_model.encoder.layers.1.mlp.fc1.weight")) return Part::kTextEncoder;
  if (has("encoder.block.0.layer.0.SelfAttention.q.weight")) return Part::kTextEncoder3;
  return std::nullopt;
}

Result<boost::json::object> configs_of(const SafetensorsFile& file) {
  const auto found = file.metadata().find(kConfigsMetadata);
  if (found == file.metadata().end()) return boost::json::object();
  boost::system::error_code error;
  auto value = boost::json::parse(found->second, error);
  if (error || !value.is_object()) {
    return data_corruption(file.path().string(), std::string(kConfigsMetadata) + " is not a JSON object");
  }
  return std::move(value.get_object());
}

/// Codes with scales of channels and blocks are the end of a path: what is made of them would be rounded twice.
Status check_plain(const SafetensorsFile& file) {
  const auto found = file.metadata().find(kProvenanceMetadata);
  if (found == file.metadata().end()) return {};
  const auto provenance = parse_provenance(found->second, file.path().string());
  return failed_precondition(file.path().string(),
                             fmt::format("is quantised already ({}); start from the 16-bit weights",
                                         provenance.ok() ? provenance->in_words() : provenance.status().message()));
}

template <typename Tensors>
NameSizes name_sizes(const Tensors& tensors) {
  NameSizes sizes;
  const auto count = [&tensors](const std::string& before, const std::string& after) {
    int number = 0;
    while (tensors.contains(before + std::to_string(number) + after)) ++number;
    return number;
  };
  sizes.blocks = count("joint_blocks.", ".x_block.adaLN_modulation.1.weight");
  sizes.vae_levels = count("decoder.up.", ".block.0.conv1.weight");
  return sizes;
}

}  // namespace

Status CheckpointSource::gather_file(const fs::path& path, const Part* forced, std::vector<Gathered>& into) {
  OCTAVO_ASSIGN_OR_RETURN(const auto file, SafetensorsFile::open(path));
  OCTAVO_RETURN_IF_ERROR(check_plain(*file));
  OCTAVO_ASSIGN_OR_RETURN(const boost::json::object configs, configs_of(*file));
  std::map<Part, Gathered> found;
  std::optional<Part> bare;
  for (const auto& [name, info] : file->tensors()) {
    std::optional<Part> part;
    std::string_view rest = name;
    for (const PartNames& row : kParts) {
      if (!name.starts_with(row.prefix)) continue;
      part = row.part;
      rest.remove_prefix(row.prefix.size());
    }
    if (!part) {
      if (!bare) bare = forced != nullptr ? std::optional(*forced) : part_of_bare_file(*file, configs);
      if (!bare) {
        return invalid_argument(path.string(), "tensor " + name + " belongs to no part of Stable Diffusion 3.5");
      }
      part = bare;
    }
    Gathered& gathered = found[*part];
    gathered.part = *part;
    gathered.tensors.emplace(std::string(rest), Stored{file, &info});
  }
  for (auto& [part, gathered] : found) {
    if (forced != nullptr && part != *forced) continue;
    if (const auto* config = configs.if_contains(names_of(part).folder); config != nullptr && config->is_object()) {
      gathered.config = json_text(config->get_object());
    }
    const bool twice =
        std::any_of(into.begin(), into.end(), [part = part](const Gathered& other) { return other.part == part; });
    if (twice) {
      return invalid_argument(path.string(),
                              fmt::format("holds a second {}; leave one of the files out", names_of(part).title));
    }
    into.push_back(std::move(gathered));
  }
  return {};
}

Result<std::vector<CheckpointSource::Gathered>> CheckpointSource::gather(const fs::path& model) {
  std::vector<Gathered> gathered;
  std::error_code error;
  if (!fs::exists(model, error)) return not_found(model.string(), "no such file or folder");
  if (!fs::is_directory(model, error)) {
    OCTAVO_RETURN_IF_ERROR(gather_file(model, nullptr, gathered));
    return gathered;
  }
  if (!fs::exists(model / "model_index.json", error)) {
    std::set<fs::path> files;
    for (const auto& entry : fs::directory_iterator(model, error)) {
      if (entry.path().extension() == ".safetensors") files.insert(entry.path());
    }
    if (files.empty()) return not_found(model.string(), "holds neither model_index.json nor .safetensors files");
    for (const fs::path& file : files) OCTAVO_RETURN_IF_ERROR(gather_file(file, nullptr, gathered));
    return gathered;
  }
  OCTAVO_ASSIGN_OR_RETURN(const auto folder, DiffusersFolder::open(model));
  for (const PartNames& row : kParts) {
    const std::string name(row.folder);
    if (!folder.has_part(name)) continue;
    if (auto files = open_part_files(model / name); files.ok()) {
      for (const auto& file : *files) OCTAVO_RETURN_IF_ERROR(check_plain(*file));
    }
    OCTAVO_ASSIGN_OR_RETURN(const auto part, folder.open_part(name));
    Gathered one{row.part, {}, json_text(part.config)};
    for (const auto& file : part.weights.files()) {
      for (const auto& [tensor, info] : file->tensors()) one.tensors.emplace(tensor, Stored{file, &info});
    }
    gathered.push_back(std::move(one));
  }
  return gathered;
}

Status CheckpointSource::add_tensor(const std::string& canonical, const Shape& shape, Place place) {
  const std::string& word = place.stored.info->dtype;
  const auto dtype = floating_dtype(word);
  if (!dtype) {
    return invalid_argument(place.stored.file->path().string(),
                            fmt::format("tensor {} is {}, which no model here uses", canonical, word));
  }
  if (place.scaled && scaled_weight_.empty()) scaled_weight_ = canonical;
  parts_.back().tensors.push_back({canonical, shape, *dtype});
  places_.back().push_back(std::move(place));
  return {};
}

Status CheckpointSource::add(Gathered gathered) {
  StoredPart& tensors = gathered.tensors;
  if (tensors.contains(kSharedEmbedding)) {
    if (const auto second = tensors.find(kSecondEmbedding); second != tensors.end()) tensors.erase(second);
  }
  const bool original =
      tensors.contains("x_embedder.proj.weight") || tensors.contains("decoder.mid.block_1.conv1.weight");
  const NameSizes sizes = name_sizes(tensors);
  parts_.push_back({gathered.part, {}, {}});
  places_.emplace_back();
  for (const auto& [name, stored] : tensors) {
    if (is_ignored(name)) continue;
    Place place{.stored = stored};
    if (name.ends_with(".weight")) {
      const std::string layer = name.substr(0, name.size() - std::string_view(".weight").size());
      for (const std::string_view suffix : {kOldWeightScale, kNewWeightScale}) {
        const auto scale = tensors.find(layer + std::string(suffix));
        if (scale == tensors.end()) continue;
        if (scale->second.info->dtype != "F32" || scale->second.info->byte_count != sizeof(float)) {
          return invalid_argument(stored.file->path().string(), scale->first +
                                                                    " is not one F32 number: only scaled FP8 "
                                                                    "with one scale a tensor is read");
        }
        std::memcpy(&place.dequant_scale, scale->second.file->bytes(*scale->second.info).data(), sizeof(float));
        place.scaled = true;
      }
    }
    const Shape& shape = stored.info->shape;
    if (!original) {
      const std::string canonical(name == kSecondEmbedding ? kSharedEmbedding : std::string_view(name));
      OCTAVO_RETURN_IF_ERROR(add_tensor(canonical, shape, place));
      continue;
    }
    const auto names = canonical_in_original(gathered.part, name, sizes);
    const auto slices = static_cast<std::int64_t>(names.size());
    if (names.empty() || shape.rank() == 0 || shape[0] % slices != 0) {
      return invalid_argument(
          stored.file->path().string(),
          fmt::format("tensor {} {} is not one of the {}", name, shape.to_string(), names_of(gathered.part).title));
    }
    for (std::int64_t slice = 0; slice < slices; ++slice) {
      const std::string& canonical = names[static_cast<std::size_t>(slice)];
      const auto placed = placement_in_original(gathered.part, canonical, sizes);
      OCTAVO_CHECK(placed && placed->stored == name, "{} has no place", canonical);
      Shape part_shape;
      const int rank = placed->as_convolution && shape.rank() == 4 ? 2 : shape.rank();
      for (int axis = 0; axis < rank; ++axis) part_shape.append(axis == 0 ? shape[0] / slices : shape[axis]);
      place.begin = slice * (shape.element_count() / slices);
      place.swap_halves = placed->swap_halves;
      OCTAVO_RETURN_IF_ERROR(add_tensor(canonical, part_shape, place));
    }
  }
  std::map<std::string, Shape, std::less<>> shapes;
  for (const SourceTensor& tensor : parts_.back().tensors) shapes.emplace(tensor.name, tensor.shape);
  if (const auto table = shapes.find("text_model.embeddings.token_embedding.weight");
      table != shapes.end() && !shapes.contains(kProjection) && table->second.rank() == 2) {
    // clip_l.safetensors as published leaves it out: it is the identity.
    const Shape square{table->second[1], table->second[1]};
    const DType dtype = parts_.back().tensors.front().dtype;
    parts_.back().tensors.push_back({std::string(kProjection), square, dtype});
    places_.back().push_back({});
    shapes.emplace(kProjection, square);
  }
  parts_.back().config = gathered.config;
  if (gathered.config.empty()) {
    OCTAVO_ASSIGN_OR_RETURN(parts_.back().config, infer_config(gathered.part, shapes));
  }
  return {};
}

Result<std::unique_ptr<CheckpointSource>> CheckpointSource::open(const fs::path& model,
                                                                 const std::vector<std::pair<Part, fs::path>>& extra) {
  OCTAVO_ASSIGN_OR_RETURN(std::vector<Gathered> gathered, gather(model));
  for (const auto& [part, path] : extra) {
    std::erase_if(gathered, [part = part](const Gathered& one) { return one.part == part; });
    const std::size_t before = gathered.size();
    OCTAVO_RETURN_IF_ERROR(gather_file(path, &part, gathered));
    if (gathered.size() == before) {
      return invalid_argument(path.string(), fmt::format("holds no {}", names_of(part).title));
    }
  }
  std::sort(gathered.begin(), gathered.end(), [](const Gathered& a, const Gathered& b) { return a.part < b.part; });
  std::unique_ptr<CheckpointSource> source(new CheckpointSource);
  for (Gathered& part : gathered) OCTAVO_RETURN_IF_ERROR(source->add(std::move(part)));
  return source;
}

bool CheckpointSource::has_part(Part part) const {
  return std::any_of(parts_.begin(), parts_.end(), [part](const SourcePart& one) { return one.part == part; });
}

void CheckpointSource::read_run(const Place& place, std::int64_t begin, std::int64_t count, DType dtype,
                                std::byte* out) const {
  const DType stored = floating_dtype(place.stored.info->dtype).value();
  const std::byte* from = place.stored.file->bytes(*place.stored.info).data() +
                          static_cast<std::size_t>(place.begin + begin) * dtype_size(stored);
  if (!place.scaled) return convert_elements(from, stored, out, dtype, count);
  std::array<float, kBlock> values;
  for (std::int64_t done = 0; done < count; done += kBlock) {
    const std::int64_t length = std::min(kBlock, count - done);
    convert_elements(from + static_cast<std::size_t>(done) * dtype_size(stored), stored,
                     reinterpret_cast<std::byte*>(values.data()), DType::kF32, length);
    for (std::int64_t i = 0; i < length; ++i) values[static_cast<std::size_t>(i)] *= place.dequant_scale;
    convert_elements(reinterpret_cast<const std::byte*>(values.data()), DType::kF32,
                     out + static_cast<std::size_t>(done) * dtype_size(dtype), dtype, length);
  }
}

Status CheckpointSource::read(std::size_t part, std::size_t tensor, std::int64_t begin, std::int64_t count, DType dtype,
                              std::byte* out) const {
  const Place& place = places_[part][tensor];
  const Shape& shape = parts_[part].tensors[tensor].shape;
  const std::size_t size = dtype_size(dtype);
  if (place.stored.file == nullptr) {
    for (std::int64_t i = 0; i < count; ++i) {
      const float value = (begin + i) % (shape[1] + 1) == 0 ? 1.0f : 0.0f;
      convert_elements(reinterpret_cast<const std::byte*>(&value), DType::kF32,
                       out + static_cast<std::size_t>(i) * size, dtype, 1);
    }
    return {};
  }
  if (!place.swap_halves) {
    read_run(place, begin, count, dtype, out);
    return {};
  }
  const std::int64_t half = shape.element_count() / 2, end = begin + count;
  const std::int64_t first = std::clamp<std::int64_t>(half - begin, 0, count);  // of the canonical first half
  if (first > 0) read_run(place, begin + half, first, dtype, out);
  if (first < count) {
    const std::int64_t from = std::max(begin, half);
    read_run(place, from - half, end - from, dtype, out + static_cast<std::size_t>(first) * size);
  }
  return {};
}

void CheckpointSource::release(std::size_t part, std::size_t tensor) const {
  const Place& place = places_[part][tensor];
  if (place.stored.file != nullptr) place.stored.file->release(*place.stored.info);
}

}  // namespace octavo::weights
