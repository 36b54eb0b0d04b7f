#include "weights/export/export_plan.h"

#include <algorithm>
#include <boost/json.hpp>
#include <numeric>

#include "weights/export/json_text.h"
#include "weights/quantization/provenance.h"

namespace octavo::weights {
namespace {

constexpr std::size_t kDiffusersShardBytes = 10'000'000'000;
constexpr std::size_t kTransformersShardBytes = 5'000'000'000;

// The value is padded with blanks, which JSON allows, so that the tensors behind it keep their alignment.
constexpr std::string_view kFp8Layer = R"({"format": "float8_e4m3fn"})";
constexpr std::string_view kFp8LayerInFullPrecision =
    R"({"format": "float8_e4m3fn", "full_precision_matrix_mult": true})";
constexpr std::size_t kAlignment = 8;
constexpr std::string_view kWeightEnding = ".weight";

bool is_text_encoder(Part part) { return part != Part::kTransformer && part != Part::kVae; }

/// T5's activations exceed what E4M3 holds without a calibrated scale: its products stay in full precision.
bool multiplies_in_full_precision(Part part) { return part == Part::kTextEncoder3; }

int int_in(const boost::json::object& config, const char* key, int otherwise) {
  const auto* value = config.if_contains(key);
  return value != nullptr && value->is_int64() ? static_cast<int>(value->get_int64()) : otherwise;
}

NameSizes name_sizes(const std::vector<SourcePart>& parts) {
  NameSizes sizes;
  for (const SourcePart& part : parts) {
    if (part.part != Part::kTransformer && part.part != Part::kVae) continue;
    const auto config = boost::json::parse(part.config);
    if (part.part == Part::kTransformer) {
      sizes.blocks = int_in(config.get_object(), "num_layers", 0);
    } else if (const auto* channels = config.get_object().if_contains("block_out_channels");
               channels != nullptr && channels->is_array()) {
      sizes.vae_levels = static_cast<int>(channels->get_array().size());
    }
  }
  return sizes;
}

class Planner {
 public:
  Planner(const std::vector<SourcePart>& parts, const ExportOptions& options)
      : parts_(parts), options_(options), sizes_(name_sizes(parts)) {}

  DType dtype_of(const SourceTensor& tensor) const {
    if (options_.dtype) return *options_.dtype;
    if (options_.scaled == ScaledFp8::kNone && options_.quantized.empty()) return tensor.dtype;
    if (dtype_size(tensor.dtype) == 2) return tensor.dtype;
    // Smoothing that is folded into a bias needs more than 16 bits there, and vectors weigh nothing.
    if (!options_.quantized.empty() && tensor.shape.rank() < 2) return tensor.dtype;
    return DType::kBF16;
  }

  Result<std::vector<PlannedTensor>> diffusers_tensors(std::size_t part) const {
    std::vector<PlannedTensor> planned;
    const auto quantized = options_.quantized.find(parts_[part].part);
    std::size_t layers = 0;
    for (std::size_t i = 0; i < parts_[part].tensors.size(); ++i) {
      const SourceTensor& tensor = parts_[part].tensors[i];
      if (quantized != options_.quantized.end() && tensor.name.ends_with(kWeightEnding)) {
        const std::string layer = tensor.name.substr(0, tensor.name.size() - kWeightEnding.size());
        if (const auto found = quantized->second.layers.find(layer); found != quantized->second.layers.end()) {
          if (tensor.shape.element_count() == 0) {
            return invalid_argument(tensor.name, "is " + tensor.shape.to_string() + ": it cannot be quantised");
          }
          add_quantized(planned, layer, tensor.shape, found->second, whole(part, i));
          ++layers;
          continue;
        }
      }
      planned.push_back(values(tensor.name, tensor.shape, dtype_of(tensor), whole(part, i)));
    }
    OCTAVO_CHECK(quantized == options_.quantized.end() || layers == quantized->second.layers.size(),
                 "{} layers are to be quantised, {} of them exist", quantized->second.layers.size(), layers);
    return planned;
  }

  /// Names and row orders of the original layout; `prefix` in front of every name.
  Result<std::vector<PlannedTensor>> original_tensors(std::size_t part, const std::string& prefix) const {
    const SourcePart& source = parts_[part];
    std::vector<PlannedTensor> planned;
    std::map<std::string, std::size_t> index;  // stored name to place in `planned`
    std::map<std::string, int> missing;        // slices that have not come
    for (std::size_t i = 0; i < source.tensors.size(); ++i) {
      const SourceTensor& tensor = source.tensors[i];
      const auto placed = placement_in_original(source.part, tensor.name, sizes_);
      if (!placed) return unknown(source.part, tensor.name);
      const std::vector<Piece> pieces = placed->swap_halves ? swapped(part, i) : whole(part, i);
      if (placed->slice_count == 1) {
        planned.push_back(
            values(prefix + placed->stored, stored_shape(tensor.shape, *placed), dtype_of(tensor), pieces));
        if (is_scaled(source.part, tensor)) scale(planned, source.part);
        continue;
      }
      const auto [at, first] = index.try_emplace(placed->stored, planned.size());
      if (first) {
        planned.push_back(values(prefix + placed->stored, stored_shape(tensor.shape, *placed), dtype_of(tensor), {}));
        planned.back().pieces.resize(static_cast<std::size_t>(placed->slice_count));
        missing[placed->stored] = placed->slice_count;
      }
      PlannedTensor& joined = planned[at->second];
      if (joined.dtype != dtype_of(tensor)) {
        return invalid_argument(tensor.name, fmt::format("is {}, the tensors that are stored with it are {}: convert "
                                                         "them to one type with --dtype",
                                                         dtype_name(dtype_of(tensor)), dtype_name(joined.dtype)));
      }
      joined.pieces[static_cast<std::size_t>(placed->slice)] = pieces.front();
      if (--missing[placed->stored] == 0 && is_scaled(source.part, tensor)) {
        // The last slice completes the tensor; what belongs to it stands right behind it.
        const std::size_t place = at->second;
        std::vector<PlannedTensor> one(1, planned[place]);
        scale(one, source.part);
        planned[place] = one.front();
        planned.insert(planned.begin() + static_cast<std::ptrdiff_t>(place) + 1, one.begin() + 1, one.end());
        for (auto& [name, later] : index) {
          if (later > place) later += one.size() - 1;
        }
      }
    }
    for (const auto& [name, count] : missing) {
      if (count > 0) return invalid_argument(name, "lacks one of the tensors that it is made of");
    }
    if (any_scaled(planned) && options_.scaled == ScaledFp8::kOld) {
      // Zero elements allow FP8 products, two demand that weights are widened first (ComfyUI, comfy/ops.py).
      const std::int64_t elements = multiplies_in_full_precision(source.part) ? 2 : 0;
      const std::string marker = prefix + std::string(kScaledFp8Marker);
      planned.push_back(constant(marker, "F8_E4M3", std::string(static_cast<std::size_t>(elements), '\0')));
    }
    return planned;
  }

  /// Large parts in files of at most the limit, each with as many tensors as fit, and an index.
  Status add_diffusers_part(std::size_t part, ExportPlan& plan) const {
    const SourcePart& source = parts_[part];
    const std::string folder(names_of(source.part).folder);
    const std::string stem = is_text_encoder(source.part) ? "model" : "diffusion_pytorch_model";
    const std::size_t limit = options_.shard_bytes > 0       ? options_.shard_bytes
                              : is_text_encoder(source.part) ? kTransformersShardBytes
                                                             : kDiffusersShardBytes;
    OCTAVO_ASSIGN_OR_RETURN(std::vector<PlannedTensor> tensors, diffusers_tensors(part));
    std::vector<std::vector<PlannedTensor>> shards(1);
    std::size_t shard_bytes = 0, total = 0;
    for (std::size_t i = 0; i < tensors.size();) {
      // What belongs to a weight stays in its file: it is made while the weight is.
      std::size_t end = i + 1, bytes = tensors[i].stored.byte_count();
      for (; end < tensors.size() && belongs_to_previous(tensors[end].kind); ++end) {
        bytes += tensors[end].stored.byte_count();
      }
      if (!shards.back().empty() && shard_bytes + bytes > limit) {
        shards.emplace_back();
        shard_bytes = 0;
      }
      shard_bytes += bytes;
      total += bytes;
      for (; i < end; ++i) shards.back().push_back(std::move(tensors[i]));
    }
    boost::json::object map;
    for (std::size_t i = 0; i < shards.size(); ++i) {
      const std::string file = shards.size() == 1
                                   ? stem + ".safetensors"
                                   : fmt::format("{}-{:05}-of-{:05}.safetensors", stem, i + 1, shards.size());
      for (const PlannedTensor& tensor : shards[i]) map[tensor.stored.name] = file;
      plan.files.push_back({folder + "/" + file, std::move(shards[i]), metadata({})});
      if (const auto quantized = options_.quantized.find(source.part); quantized != options_.quantized.end()) {
        for (const auto& [key, word] : quantized->second.metadata) plan.files.back().metadata[key] = word;
      }
    }
    if (shards.size() > 1) {
      const boost::json::object index{{"metadata", {{"total_size", total}}}, {"weight_map", std::move(map)}};
      plan.texts[folder + "/" + stem + ".safetensors.index.json"] = json_text(index);
    }
    plan.texts[folder + "/config.json"] = source.config;
    return {};
  }

  /// One file of the original layout with these parts.
  Status add_original_file(const std::string& path, const std::vector<Part>& wanted, bool prefixed,
                           ExportPlan& plan) const {
    PlannedFile file;
    file.path = path;
    // The autoencoder last: its sizes are odd, and what stands behind it would be read at odd addresses.
    std::vector<std::size_t> order(parts_.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_partition(order.begin(), order.end(),
                          [this](std::size_t part) { return parts_[part].part != Part::kVae; });
    for (const std::size_t i : order) {
      const Part part = parts_[i].part;
      if (std::find(wanted.begin(), wanted.end(), part) == wanted.end()) continue;
      const std::string prefix(prefixed ? names_of(part).prefix : "");
      OCTAVO_ASSIGN_OR_RETURN(std::vector<PlannedTensor> tensors, original_tensors(i, prefix));
      if (part == Part::kTextEncoder3 && !prefixed) add_second_embedding(tensors);
      std::move(tensors.begin(), tensors.end(), std::back_inserter(file.tensors));
    }
    if (file.tensors.empty()) return {};
    file.metadata = metadata(wanted);
    plan.files.push_back(std::move(file));
    return {};
  }

 private:
  static PlannedTensor values(const std::string& name, const Shape& shape, DType dtype, std::vector<Piece> pieces) {
    PlannedTensor tensor;
    tensor.stored = {name, std::string(safetensors_word(dtype)), shape};
    tensor.dtype = dtype;
    tensor.pieces = std::move(pieces);
    return tensor;
  }
  static PlannedTensor constant(const std::string& name, const std::string& dtype, std::string bytes) {
    PlannedTensor tensor;
    tensor.stored = {name, dtype, Shape{static_cast<std::int64_t>(bytes.size())}};
    tensor.kind = PlannedTensor::Kind::kConstant;
    tensor.constant = std::move(bytes);
    return tensor;
  }
  template <typename Element>
  static PlannedTensor list_of(const std::string& name, DType dtype, const std::vector<Element>& elements) {
    PlannedTensor tensor;
    tensor.stored = {name, std::string(safetensors_word(dtype)), Shape{static_cast<std::int64_t>(elements.size())}};
    tensor.kind = PlannedTensor::Kind::kConstant;
    tensor.constant.assign(reinterpret_cast<const char*>(elements.data()), elements.size() * sizeof(Element));
    return tensor;
  }
  /// The codes of a layer's weight, and behind them what belongs to it.
  static void add_quantized(std::vector<PlannedTensor>& planned, const std::string& layer, const Shape& shape,
                            const QuantizedLayer& how, std::vector<Piece> pieces) {
    OCTAVO_CHECK(shape.rank() == 2 && is_quantized(how.format), "{} {} cannot be quantised to {}", layer,
                 shape.to_string(), dtype_name(how.format));
    OCTAVO_CHECK(how.input_multiplier.empty() || static_cast<std::int64_t>(how.input_multiplier.size()) == shape[1],
                 "{}: {} multipliers for {} inputs", layer, how.input_multiplier.size(), shape[1]);
    PlannedTensor codes = values(layer + std::string(kWeightEnding), shape, how.format, std::move(pieces));
    codes.kind = PlannedTensor::Kind::kCodes;
    codes.layer = how;
    planned.push_back(std::move(codes));
    PlannedTensor scales =
        values(layer + std::string(kNewWeightScale),
               how.grain == ScaleGrain::kRow ? Shape{shape[0], 1} : scale_shape(how.grain, shape[0], shape[1]),
               DType::kF32, {});
    scales.kind = PlannedTensor::Kind::kCodeScales;
    planned.push_back(std::move(scales));
    if (how.input_scale) {
      planned.push_back(
          list_of(layer + std::string(kNewInputScale), DType::kF32, std::vector<float>{*how.input_scale}));
    }
    if (!how.input_multiplier.empty()) {
      planned.push_back(list_of(layer + std::string(kInputMultiplier), DType::kF32, how.input_multiplier));
    }
    if (how.outliers.empty()) return;
    planned.push_back(list_of(layer + std::string(kOutlierIndex), DType::kI32, how.outliers));
    PlannedTensor columns = values(layer + std::string(kOutlierWeight),
                                   Shape{shape[0], static_cast<std::int64_t>(how.outliers.size())}, DType::kBF16, {});
    columns.kind = PlannedTensor::Kind::kOutliers;
    planned.push_back(std::move(columns));
  }
  static Status unknown(Part part, const std::string& name) {
    return invalid_argument(
        name, fmt::format("is a tensor of the {} that the original layout does not know", names_of(part).title));
  }
  static bool belongs_to_previous(PlannedTensor::Kind kind) {
    return kind == PlannedTensor::Kind::kCodeScales || kind == PlannedTensor::Kind::kConstant ||
           kind == PlannedTensor::Kind::kOutliers;
  }
  static bool any_scaled(const std::vector<PlannedTensor>& tensors) {
    return std::any_of(tensors.begin(), tensors.end(),
                       [](const auto& tensor) { return tensor.kind == PlannedTensor::Kind::kScaledWeight; });
  }

  std::vector<Piece> whole(std::size_t part, std::size_t tensor) const {
    return {{part, tensor, 0, parts_[part].tensors[tensor].shape.element_count()}};
  }
  std::vector<Piece> swapped(std::size_t part, std::size_t tensor) const {
    const std::int64_t half = parts_[part].tensors[tensor].shape.element_count() / 2;
    return {{part, tensor, half, half}, {part, tensor, 0, half}};
  }
  static Shape stored_shape(const Shape& canonical, const Placement& placement) {
    Shape shape;
    for (int axis = 0; axis < canonical.rank(); ++axis) {
      shape.append(axis == 0 ? canonical[0] * placement.slice_count : canonical[axis]);
    }
    if (placement.as_convolution) {
      shape.append(1);
      shape.append(1);
    }
    return shape;
  }

  bool is_scaled(Part part, const SourceTensor& tensor) const {
    return options_.scaled != ScaledFp8::kNone && is_scaled_layer(part, tensor);
  }
  /// Turns the last tensor into E4M3 and puts its scale behind it.
  void scale(std::vector<PlannedTensor>& planned, Part part) const {
    PlannedTensor& weight = planned.back();
    weight.kind = PlannedTensor::Kind::kScaledWeight;
    weight.dtype = DType::kE4M3;
    weight.stored.dtype = safetensors_word(DType::kE4M3);
    const std::string layer = weight.stored.name.substr(0, weight.stored.name.size() - std::string(".weight").size());
    PlannedTensor scale;
    scale.kind = PlannedTensor::Kind::kScale;
    const bool old = options_.scaled == ScaledFp8::kOld;
    scale.stored = {layer + std::string(old ? kOldWeightScale : kNewWeightScale), "F32", Shape{}};
    planned.push_back(std::move(scale));
    if (old) return;
    std::string word(multiplies_in_full_precision(part) ? kFp8LayerInFullPrecision : kFp8Layer);
    word.resize((word.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
    planned.push_back(constant(layer + std::string(kComfyQuant), "U8", std::move(word)));
  }
  /// Separate T5 files carry the embedding under two names.
  static void add_second_embedding(std::vector<PlannedTensor>& tensors) {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].stored.name != "shared.weight") continue;
      PlannedTensor second = tensors[i];
      second.stored.name = "encoder.embed_tokens.weight";
      tensors.push_back(std::move(second));
      return;
    }
  }
  /// The options' words, the format's own, and the configurations of the parts in the file.
  std::map<std::string, std::string> metadata(const std::vector<Part>& configured) const {
    std::map<std::string, std::string> words = options_.metadata;
    words["format"] = "pt";
    boost::json::object configs;
    for (const SourcePart& part : parts_) {
      if (std::find(configured.begin(), configured.end(), part.part) == configured.end()) continue;
      configs[names_of(part.part).folder] = boost::json::parse(part.config);
    }
    if (!configs.empty()) words[std::string(kConfigsMetadata)] = boost::json::serialize(configs);
    return words;
  }

  const std::vector<SourcePart>& parts_;
  const ExportOptions& options_;
  const NameSizes sizes_;
};

}  // namespace

Result<CheckpointLayout> parse_checkpoint_layout(const std::string& word, const std::string& flag) {
  for (std::size_t i = 0; i < kLayoutWords.size(); ++i) {
    if (kLayoutWords[i] == word) return static_cast<CheckpointLayout>(i);
  }
  return invalid_argument(flag, "'" + word + "' is none of diffusers, original, parts, comfyui");
}

bool is_folder(CheckpointLayout layout) {
  return layout == CheckpointLayout::kDiffusers || layout == CheckpointLayout::kSeparateParts;
}

bool is_scaled_layer(Part part, const SourceTensor& tensor) {
  if (part != Part::kTransformer && part != Part::kTextEncoder3) return false;
  if (!tensor.name.ends_with(".weight") || tensor.shape.rank() != 2) return false;
  return tensor.name != "shared.weight" && !tensor.name.ends_with("relative_attention_bias.weight");
}

std::size_t PlannedFile::byte_count() const {
  std::size_t total = 0;
  for (const PlannedTensor& tensor : tensors) total += tensor.stored.byte_count();
  return total;
}

std::size_t ExportPlan::byte_count() const {
  std::size_t total = 0;
  for (const PlannedFile& file : files) total += file.byte_count();
  for (const auto& [path, text] : texts) total += text.size();
  return total;
}

std::size_t ExportPlan::scaled_count() const {
  std::size_t count = 0;
  for (const PlannedFile& file : files) {
    for (const PlannedTensor& tensor : file.tensors) {
      const bool scaled =
          tensor.kind == PlannedTensor::Kind::kScaledWeight || tensor.kind == PlannedTensor::Kind::kCodes;
      count += scaled ? 1 : 0;
    }
  }
  return count;
}

Result<ExportPlan> plan_export(const std::vector<SourcePart>& parts, const ExportOptions& options) {
  if (options.scaled != ScaledFp8::kNone && options.layout != CheckpointLayout::kComfyUi) {
    return invalid_argument("--layout", "scaled FP8 is a form of the comfyui layout");
  }
  if (!options.quantized.empty() && options.layout != CheckpointLayout::kDiffusers) {
    return invalid_argument("--layout", "weights with scales of channels or blocks are a form of the diffusers layout");
  }
  const Planner planner(parts, options);
  ExportPlan plan;
  plan.check_finite = !options.quantized.empty();
  if (options.layout == CheckpointLayout::kDiffusers) {
    for (std::size_t i = 0; i < parts.size(); ++i) OCTAVO_RETURN_IF_ERROR(planner.add_diffusers_part(i, plan));
    return plan;
  }
  const std::vector<Part> drawing = {Part::kTransformer, Part::kVae};
  if (options.layout == CheckpointLayout::kSeparateParts) {
    OCTAVO_RETURN_IF_ERROR(planner.add_original_file(options.base_name + ".safetensors", drawing, true, plan));
    OCTAVO_RETURN_IF_ERROR(planner.add_original_file("clip_l.safetensors", {Part::kTextEncoder}, false, plan));
    OCTAVO_RETURN_IF_ERROR(planner.add_original_file("clip_g.safetensors", {Part::kTextEncoder2}, false, plan));
    OCTAVO_RETURN_IF_ERROR(planner.add_original_file("t5xxl.safetensors", {Part::kTextEncoder3}, false, plan));
    return plan;
  }
  std::vector<Part> all = drawing;
  if (options.text_encoders) {
    for (const PartNames& row : kParts) {
      if (is_text_encoder(row.part)) all.push_back(row.part);
    }
  }
  OCTAVO_RETURN_IF_ERROR(planner.add_original_file("", all, true, plan));
  return plan;
}

}  // namespace octavo::weights
