#include "weights/quantization/provenance.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cmath>
#include <cstring>
#include <utility>

#include "tensor/quantized.h"
#include "weights/layouts/name_map.h"

namespace octavo::weights {
namespace {

constexpr std::array<std::pair<ActivationForm, std::string_view>, 4> kFormWords = {{
    {ActivationForm::kToken, "token"},
    {ActivationForm::kStatic, "static"},
    {ActivationForm::kBlock, "block"},
    {ActivationForm::kNone, "none"},
}};
constexpr std::array<std::pair<DType, std::string_view>, 3> kFormatWords = {{
    {DType::kE4M3, "e4m3"},
    {DType::kE5M2, "e5m2"},
    {DType::kI8, "int8"},
}};
constexpr std::string_view kWeightEnding = ".weight";
constexpr std::size_t kMostBytes = 16 << 20;  // of the text; a header is not trusted with memory

std::string quoted(std::string_view member) { return "\"" + std::string(member) + "\""; }

/// Members of one object, with errors that name the file.
class Members {
 public:
  Members(const boost::json::object& object, std::string file) : object_(object), file_(std::move(file)) {}

  Result<std::string> text(std::string_view member) const {
    const auto* value = object_.if_contains(member);
    if (value == nullptr || !value->is_string()) return wrong(member, "is no text");
    return std::string(value->get_string());
  }
  Result<boost::json::object> object(std::string_view member) const {
    const auto* value = object_.if_contains(member);
    if (value == nullptr || !value->is_object()) return wrong(member, "is no object");
    return value->get_object();
  }
  Status wrong(std::string_view member, std::string_view what) const {
    return data_corruption(file_, fmt::format("{}: {} {}", kProvenanceMetadata, quoted(member), what));
  }

 private:
  const boost::json::object& object_;
  const std::string file_;
};

/// A tensor in one of the part's files.
struct Found {
  const SafetensorsFile* file = nullptr;
  const TensorInfo* info = nullptr;
};
using Tensors = std::map<std::string_view, Found, std::less<>>;

template <typename Element>
std::vector<Element> elements_of(const Found& found) {
  const auto bytes = found.file->bytes(*found.info);
  std::vector<Element> elements(bytes.size() / sizeof(Element));
  std::memcpy(elements.data(), bytes.data(), elements.size() * sizeof(Element));  // a file may hold them at any address
  return elements;
}

Status wrong(const Found& found, std::string_view name, const std::string& what) {
  return data_corruption(found.file->path().string(), fmt::format("{} {}", name, what));
}

bool is_code(std::string_view dtype) { return dtype == "F8_E4M3" || dtype == "F8_E5M2" || dtype == "I8"; }

/// The tensors that belong to one layer's codes.
class LayerCheck {
 public:
  LayerCheck(const Tensors& tensors, std::string layer, const Found& weight, ActivationForm form)
      : tensors_(tensors), layer_(std::move(layer)), weight_(weight), form_(form) {}

  Status run() const {
    const Shape& shape = weight_.info->shape;
    if (shape.rank() != 2 || shape.element_count() == 0) {
      return wrong(weight_, layer_ + ".weight", "is " + shape.to_string() + ", codes are a matrix");
    }
    const Found* scale = find(kNewWeightScale);
    if (scale == nullptr) return wrong(weight_, layer_ + ".weight", "has no weight_scale: the file is incomplete");
    const std::int64_t rows = shape[0], blocks = (shape[1] + kScaleBlock - 1) / kScaleBlock;
    const Shape& scales = scale->info->shape;
    if (scale->info->dtype != "F32" ||
        !(scales == Shape{1} || scales == Shape{rows, 1} || scales == Shape{rows, blocks})) {
      return wrong(*scale, layer_ + ".weight_scale",
                   fmt::format("is {} {}, expected F32 [1], [{}, 1] or [{}, {}]", scale->info->dtype,
                               scales.to_string(), rows, rows, blocks));
    }
    OCTAVO_RETURN_IF_ERROR(check_positive(*scale, kNewWeightScale));
    OCTAVO_RETURN_IF_ERROR(check_input(shape[1]));
    return check_outliers(rows, shape[1]);
  }

 private:
  const Found* find(std::string_view ending) const {
    const auto found = tensors_.find(layer_ + std::string(ending));
    return found == tensors_.end() ? nullptr : &found->second;
  }
  Status check_positive(const Found& found, std::string_view ending) const {
    const auto numbers = elements_of<float>(found);
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      if (std::isfinite(numbers[i]) && numbers[i] > 0) continue;
      return wrong(found, layer_ + std::string(ending),
                   fmt::format("holds {} at element {}, which is no scale", numbers[i], i));
    }
    return {};
  }
  Status check_input(std::int64_t inner) const {
    const Found* scale = find(kNewInputScale);
    const bool is_static = form_ == ActivationForm::kStatic;
    if (is_static && scale == nullptr)
      return wrong(weight_, layer_ + ".weight", "has no input_scale: its input is static");
    if (scale != nullptr) {
      if (!is_static) return wrong(*scale, layer_ + ".input_scale", "belongs to a layer whose input is not static");
      if (scale->info->dtype != "F32" || !(scale->info->shape == Shape{1})) {
        return wrong(*scale, layer_ + ".input_scale",
                     fmt::format("is {} {}, expected F32 [1]", scale->info->dtype, scale->info->shape.to_string()));
      }
      OCTAVO_RETURN_IF_ERROR(check_positive(*scale, kNewInputScale));
    }
    const Found* multiplier = find(kInputMultiplier);
    if (multiplier == nullptr) return {};
    if (multiplier->info->dtype != "F32" || !(multiplier->info->shape == Shape{inner})) {
      return wrong(*multiplier, layer_ + ".input_multiplier",
                   fmt::format("is {} {}, expected F32 [{}]", multiplier->info->dtype,
                               multiplier->info->shape.to_string(), inner));
    }
    return check_positive(*multiplier, kInputMultiplier);
  }
  Status check_outliers(std::int64_t rows, std::int64_t inner) const {
    const Found* index = find(kOutlierIndex);
    const Found* columns = find(kOutlierWeight);
    if (index == nullptr && columns == nullptr) return {};
    if (index == nullptr || columns == nullptr) {
      return wrong(weight_, layer_ + ".weight", "has one of outlier_index and outlier_weight: the file is incomplete");
    }
    const std::int64_t count = index->info->shape.element_count();
    if (index->info->dtype != "I32" || index->info->shape.rank() != 1 || count == 0 || columns->info->dtype != "BF16" ||
        !(columns->info->shape == Shape{rows, count})) {
      return wrong(
          *index, layer_ + ".outlier_index",
          fmt::format("is {} {} with an outlier_weight of {} {}, expected I32 [k] and BF16 [{}, k]", index->info->dtype,
                      index->info->shape.to_string(), columns->info->dtype, columns->info->shape.to_string(), rows));
    }
    std::int64_t before = -1;
    for (const std::int32_t column : elements_of<std::int32_t>(*index)) {
      if (column <= before || column >= inner) {
        return wrong(*index, layer_ + ".outlier_index",
                     fmt::format("holds {} behind {}: columns of {} inputs ascend", column, before, inner));
      }
      before = column;
    }
    return {};
  }

  const Tensors& tensors_;
  const std::string layer_;
  const Found& weight_;
  const ActivationForm form_;
};

/// "<layer>.weight_scale" to "<layer>"; empty for the name of no helper tensor.
std::string layer_of_helper(std::string_view name) {
  for (const std::string_view ending :
       {kNewWeightScale, kNewInputScale, kInputMultiplier, kOutlierIndex, kOutlierWeight}) {
    if (name.ends_with(ending)) return std::string(name.substr(0, name.size() - ending.size()));
  }
  return {};
}

Status check_tensors(const std::vector<std::shared_ptr<const SafetensorsFile>>& files,
                     const QuantizationProvenance& provenance) {
  Tensors tensors;
  for (const auto& file : files) {
    for (const auto& [name, info] : file->tensors()) tensors.emplace(name, Found{file.get(), &info});
  }
  std::size_t layers = 0;
  for (const auto& [name, found] : tensors) {
    if (const std::string layer = layer_of_helper(name); !layer.empty()) {
      const auto weight = tensors.find(layer + std::string(kWeightEnding));
      if (weight == tensors.end() || !is_code(weight->second.info->dtype)) {
        return wrong(found, name, "belongs to no 8-bit weight: the file is incomplete");
      }
      continue;
    }
    if (!is_code(found.info->dtype)) continue;
    if (!name.ends_with(kWeightEnding)) return wrong(found, name, "is " + found.info->dtype + ", only weights are");
    const std::string layer(name.substr(0, name.size() - kWeightEnding.size()));
    OCTAVO_RETURN_IF_ERROR(LayerCheck(tensors, layer, found, provenance.activations_of(layer)).run());
    ++layers;
  }
  for (const auto& [layer, form] : provenance.exceptions) {
    const auto weight = tensors.find(layer + std::string(kWeightEnding));
    if (weight == tensors.end() || !is_code(weight->second.info->dtype)) {
      return data_corruption(files.front()->path().string(),
                             layer + " is said to be quantised and is not there in 8 bits: the part is incomplete");
    }
  }
  if (layers == 0) {
    return data_corruption(files.front()->path().string(), "says that it is quantised and holds no 8-bit weight");
  }
  return {};
}

/// These words are shown on terminals and in logs.
bool has_control_characters(const boost::json::value& value) {
  const auto in_text = [](std::string_view text) {
    return std::ranges::any_of(text, [](unsigned char c) { return c < 0x20 || c == 0x7F; });
  };
  if (value.is_string()) return in_text(value.get_string());
  if (value.is_array()) return std::ranges::any_of(value.get_array(), has_control_characters);
  if (!value.is_object()) return false;
  return std::ranges::any_of(value.get_object(), [&in_text](const auto& member) {
    return in_text(member.key()) || has_control_characters(member.value());
  });
}

std::string text_in(const boost::json::object& object, std::string_view member) {
  const auto* value = object.if_contains(member);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

}  // namespace

std::string_view activation_form_word(ActivationForm form) { return kFormWords[static_cast<std::size_t>(form)].second; }

std::optional<ActivationForm> parse_activation_form(std::string_view word) {
  for (const auto& [form, name] : kFormWords) {
    if (name == word) return form;
  }
  return std::nullopt;
}

ActivationForm QuantizationProvenance::activations_of(std::string_view layer) const {
  const auto found = exceptions.find(layer);
  return found == exceptions.end() ? activations : found->second;
}

std::string QuantizationProvenance::in_words() const {
  std::string words =
      fmt::format("{} weights, one scale a {}, activations ", text_in(recipe, "format"), text_in(recipe, "weights"));
  words += activations == ActivationForm::kNone
               ? "in 16 bits"
               : fmt::format("{} {}", dtype_name(activation_format), activation_form_word(activations));
  const std::string policy = text_in(recipe, "policy");
  if (!policy.empty()) words += ", policy " + policy;
  words += calibration ? ", calibrated" : ", not calibrated";
  return fmt::format("{}; from {} (sha256 {}), {}", words, text_in(source, "model"),
                     text_in(source, "hash").substr(0, 12), tool);
}

std::string provenance_text(const QuantizationProvenance& provenance) {
  boost::json::object exceptions;
  for (const auto& [layer, form] : provenance.exceptions) exceptions[layer] = activation_form_word(form);
  const boost::json::object whole{
      {"format_version", kProvenanceVersion},
      {"tool", provenance.tool},
      {"source", provenance.source},
      {"calibration", provenance.calibration ? boost::json::value(*provenance.calibration) : boost::json::value()},
      {"recipe", provenance.recipe},
      {"activations_default", activation_form_word(provenance.activations)},
      {"activation_exceptions", std::move(exceptions)},
      {"layers_hash", provenance.layers_hash}};
  return boost::json::serialize(whole);
}

Result<QuantizationProvenance> parse_provenance(std::string_view text, const std::string& file) {
  const std::string subject = fmt::format("{}", kProvenanceMetadata);
  if (text.size() > kMostBytes) return data_corruption(file, subject + " is too long");
  boost::json::parse_options options;
  options.max_depth = 16;
  boost::system::error_code error;
  const auto value = boost::json::parse(text, error, {}, options);
  if (error || !value.is_object()) return data_corruption(file, subject + " is no JSON object");
  if (has_control_characters(value)) return data_corruption(file, subject + " holds control characters");
  const boost::json::object& json = value.get_object();
  const Members members(json, file);
  const auto* version = json.if_contains("format_version");
  if (version == nullptr || !version->is_int64()) return members.wrong("format_version", "is no number");
  if (version->get_int64() != kProvenanceVersion) {
    return invalid_argument(file, fmt::format("is quantised in format_version {}, this program reads {}: quantise the "
                                              "16-bit model again, or use the program that wrote it",
                                              version->get_int64(), kProvenanceVersion));
  }
  QuantizationProvenance provenance;
  OCTAVO_ASSIGN_OR_RETURN(provenance.tool, members.text("tool"));
  OCTAVO_ASSIGN_OR_RETURN(provenance.source, members.object("source"));
  OCTAVO_ASSIGN_OR_RETURN(provenance.recipe, members.object("recipe"));
  OCTAVO_ASSIGN_OR_RETURN(provenance.layers_hash, members.text("layers_hash"));
  const auto* calibration = json.if_contains("calibration");
  if (calibration == nullptr || (!calibration->is_object() && !calibration->is_null())) {
    return members.wrong("calibration", "is neither an object nor null");
  }
  if (calibration->is_object()) provenance.calibration = calibration->get_object();

  const std::string format = text_in(provenance.recipe, "activation_format");
  const auto known = std::find_if(kFormatWords.begin(), kFormatWords.end(),
                                  [&format](const auto& row) { return row.second == format; });
  if (known == kFormatWords.end()) return members.wrong("recipe.activation_format", "is none of e4m3, e5m2, int8");
  provenance.activation_format = known->first;
  OCTAVO_ASSIGN_OR_RETURN(const std::string form_word, members.text("activations_default"));
  const auto form = parse_activation_form(form_word);
  if (!form) return members.wrong("activations_default", "is none of token, static, block, none");
  provenance.activations = *form;
  OCTAVO_ASSIGN_OR_RETURN(const boost::json::object exceptions, members.object("activation_exceptions"));
  for (const auto& member : exceptions) {
    const auto other = member.value().is_string() ? parse_activation_form(member.value().get_string())
                                                  : std::optional<ActivationForm>();
    if (!other) return members.wrong("activation_exceptions", "has a value that is none of token, static, block, none");
    provenance.exceptions.emplace(member.key(), *other);
  }
  return provenance;
}

Result<std::optional<QuantizationProvenance>> read_provenance(
    const std::vector<std::shared_ptr<const SafetensorsFile>>& files) {
  const SafetensorsFile* first = nullptr;
  const std::string* text = nullptr;
  const SafetensorsFile* without = nullptr;
  for (const auto& file : files) {
    const auto found = file->metadata().find(kProvenanceMetadata);
    if (found == file->metadata().end()) {
      without = file.get();
    } else if (text == nullptr) {
      first = file.get();
      text = &found->second;
    } else if (*text != found->second) {
      return data_corruption(file->path().string(),
                             fmt::format("comes from another quantisation than {}: the files of one part belong to one "
                                         "run; quantise the 16-bit model again",
                                         first->path().filename().string()));
    }
  }
  if (text == nullptr) return std::optional<QuantizationProvenance>();
  if (without != nullptr) {
    return data_corruption(without->path().string(),
                           fmt::format("is not quantised and {} is: the files of one part belong to one run; quantise "
                                       "the 16-bit model again",
                                       first->path().filename().string()));
  }
  OCTAVO_ASSIGN_OR_RETURN(auto provenance, parse_provenance(*text, first->path().string()));
  OCTAVO_RETURN_IF_ERROR(check_tensors(files, provenance));
  return std::optional(std::move(provenance));
}

}  // namespace octavo::weights
