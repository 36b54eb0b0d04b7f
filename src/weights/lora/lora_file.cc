#include "weights/lora/lora_file.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cmath>
#include <cstring>
#include <map>

#include "tensor/convert.h"
#include "weights/weight_store.h"

namespace octavo::weights {
namespace {

constexpr std::string_view kAdapterMetadata = "lora_adapter_metadata";
constexpr std::size_t kMostMetadataBytes = 16 << 20;  // a header is not trusted with memory

constexpr std::array<std::string_view, 5> kDownEndings = {".lora_A.weight", ".lora_A.default.weight",
                                                          ".lora_down.weight", ".lora.down.weight",
                                                          ".lora_linear_layer.down.weight"};
constexpr std::array<std::string_view, 5> kUpEndings = {".lora_B.weight", ".lora_B.default.weight", ".lora_up.weight",
                                                        ".lora.up.weight", ".lora_linear_layer.up.weight"};
constexpr std::string_view kAlpha = ".alpha";

/// Kinds of update that are no pair of matrices, by what their keys contain, or end with.
struct OtherKind {
  std::string_view word;
  std::string_view what;
  bool at_end = false;

  bool is_of(std::string_view key) const {
    return at_end ? key.ends_with(word) : key.find(word) != std::string_view::npos;
  }
};
constexpr OtherKind kOtherKinds[] = {
    {".dora_scale", "is DoRA, which scales whole columns by the base's magnitudes"},
    {".lora_magnitude_vector", "is DoRA, which scales whole columns by the base's magnitudes"},
    {".lora_mid.", "is a Tucker decomposition"},
    {".hada_w", "is LoHa"},
    {".lokr_", "is LoKr"},
    {".oft_", "is OFT"},
    {".boft_", "is BOFT"},
    {".glora_", "is GLoRA"},
    {".diff", "is a whole difference", true},
    {".diff_b", "is a whole difference", true},
    {".lora_B.bias", "is the bias of a LoRA"},
    {".lora_embedding_", "is the LoRA of an embedding"},
};

std::optional<std::string> without_ending(std::string_view key, std::span<const std::string_view> endings) {
  for (const std::string_view ending : endings) {
    if (key.ends_with(ending) && key.size() > ending.size())
      return std::string(key.substr(0, key.size() - ending.size()));
  }
  return std::nullopt;
}

/// The one number of an alpha.
Result<float> number_of(const SafetensorsFile& file, const std::string& key, const TensorInfo& info) {
  OCTAVO_ASSIGN_OR_RETURN(const TensorView view, file.view(info));
  float value = 0;
  if (view.element_count() != 1 || !is_floating(view.dtype())) {
    return data_corruption(file.path().string(),
                           fmt::format("{} is {} {}, an alpha is one number", key, info.dtype, info.shape.to_string()));
  }
  convert_elements(static_cast<const std::byte*>(view.data()), view.dtype(), reinterpret_cast<std::byte*>(&value),
                   DType::kF32, 1);
  if (!std::isfinite(value)) return data_corruption(file.path().string(), key + " is not finite");
  return value;
}

/// A half as a matrix: a patch convolution's [r, C, 2, 2] as [r, C * 4], its [N, r, 1, 1] as [N, r].
Result<TensorView> matrix_of(const SafetensorsFile& file, const std::string& key, const TensorInfo& info) {
  OCTAVO_ASSIGN_OR_RETURN(const TensorView view, file.view(info));
  const std::string subject = file.path().string();
  if (view.dtype() != DType::kF32 && view.dtype() != DType::kF16 && view.dtype() != DType::kBF16) {
    return data_corruption(subject, fmt::format("{} is {}, expected F32, F16 or BF16", key, info.dtype));
  }
  if (view.rank() < 2 || view.element_count() == 0) {
    return data_corruption(subject, fmt::format("{} is {}, expected a matrix", key, info.shape.to_string()));
  }
  if (const auto bad = first_not_finite(view)) {
    return data_corruption(subject, fmt::format("{} holds NaN or infinity, first at element {}", key, *bad));
  }
  return view.reshape(Shape{view.dim(0), view.element_count() / view.dim(0)});
}

/// "<component>.<member>" as a pipeline writes it, or "<member>" as a single adapter does.
const boost::json::value* member_of(const boost::json::object& metadata, std::string_view component,
                                    std::string_view member) {
  const auto* value = metadata.if_contains(std::string(component) + "." + std::string(member));
  return value != nullptr ? value : metadata.if_contains(member);
}

}  // namespace

Result<LoraFile> LoraFile::open(const std::filesystem::path& path) {
  LoraFile lora;
  OCTAVO_ASSIGN_OR_RETURN(lora.file_, SafetensorsFile::open(path));
  const SafetensorsFile& file = *lora.file_;
  const std::string subject = path.string();
  struct Halves {
    LoraModule module;
    std::string down_key, up_key;
  };
  std::map<std::string, Halves> found;
  std::map<std::string, float> alphas;
  for (const auto& [key, info] : file.tensors()) {
    for (const OtherKind& kind : kOtherKinds) {
      if (!kind.is_of(key)) continue;
      return invalid_argument(
          subject, fmt::format("{} {}; plain LoRA, pairs of down and up, is what can be merged", key, kind.what));
    }
    if (auto name = without_ending(key, kDownEndings)) {
      Halves& halves = found[*name];
      if (!halves.down_key.empty()) return data_corruption(subject, *name + " has two down matrices");
      halves.down_key = key;
      OCTAVO_ASSIGN_OR_RETURN(halves.module.down, matrix_of(file, key, info));
    } else if (auto other = without_ending(key, kUpEndings)) {
      Halves& halves = found[*other];
      if (!halves.up_key.empty()) return data_corruption(subject, *other + " has two up matrices");
      halves.up_key = key;
      OCTAVO_ASSIGN_OR_RETURN(halves.module.up, matrix_of(file, key, info));
    } else if (key.ends_with(kAlpha)) {
      OCTAVO_ASSIGN_OR_RETURN(alphas[key.substr(0, key.size() - kAlpha.size())], number_of(file, key, info));
    } else {
      lora.unknown_.push_back(key);
    }
  }
  for (auto& [name, halves] : found) {
    if (halves.down_key.empty() || halves.up_key.empty()) {
      return data_corruption(subject, fmt::format("{} has no other half: the file is incomplete",
                                                  halves.down_key.empty() ? halves.up_key : halves.down_key));
    }
    if (halves.module.up.dim(1) != halves.module.down.dim(0)) {
      return data_corruption(subject, fmt::format("{} is {}, {} is {}: their ranks differ", halves.down_key,
                                                  halves.module.down.shape().to_string(), halves.up_key,
                                                  halves.module.up.shape().to_string()));
    }
    halves.module.name = name;
    if (const auto alpha = alphas.find(name); alpha != alphas.end()) {
      halves.module.alpha = alpha->second;
      alphas.erase(alpha);
    }
    lora.modules_.push_back(std::move(halves.module));
  }
  for (const auto& [name, alpha] : alphas) lora.unknown_.push_back(name + std::string(kAlpha));
  if (lora.modules_.empty()) {
    return invalid_argument(
        subject, fmt::format("is no LoRA: none of its {} tensors is a half of a pair{}", file.tensors().size(),
                             lora.unknown_.empty() ? "" : ", the first is " + lora.unknown_.front()));
  }
  return lora;
}

Result<float> LoraFile::scale_of(const LoraModule& module, std::string_view component, std::string_view layer) const {
  const auto rank = static_cast<float>(module.down.dim(0));
  if (module.alpha) return *module.alpha == 0 ? 1.0f : *module.alpha / rank;
  const auto text = file_->metadata().find(kAdapterMetadata);
  if (text == file_->metadata().end()) return 1.0f;
  const std::string subject = file_->path().string();
  boost::json::parse_options options;
  options.max_depth = 8;
  boost::system::error_code error;
  if (text->second.size() > kMostMetadataBytes)
    return data_corruption(subject, "its lora_adapter_metadata is too long");
  const auto value = boost::json::parse(text->second, error, {}, options);
  if (error || !value.is_object()) return data_corruption(subject, "its lora_adapter_metadata is no JSON object");
  const boost::json::object& metadata = value.get_object();
  if (const auto* dora = member_of(metadata, component, "use_dora");
      dora != nullptr && dora->is_bool() && dora->get_bool()) {
    return invalid_argument(subject, "is DoRA by its lora_adapter_metadata; plain LoRA is what can be merged");
  }
  const auto* alpha = member_of(metadata, component, "lora_alpha");
  if (const auto* pattern = member_of(metadata, component, "alpha_pattern");
      pattern != nullptr && pattern->is_object()) {
    for (const auto& member : pattern->get_object()) {
      // A key names a module, or the end of its name.
      const std::string_view key = member.key();
      if (key.find_first_of("^$*+?()[]{}|\\") != std::string_view::npos) {
        return invalid_argument(subject, fmt::format("alpha_pattern {} of its lora_adapter_metadata is a regular "
                                                     "expression; names of modules are what can be read",
                                                     key));
      }
      if (layer != key && !(layer.ends_with(key) && layer[layer.size() - key.size() - 1] == '.')) continue;
      alpha = &member.value();
      break;  // the first that fits
    }
  }
  if (alpha == nullptr || !alpha->is_number() || alpha->to_number<double>() == 0) return 1.0f;
  const auto* stabilised = member_of(metadata, component, "use_rslora");
  const bool root = stabilised != nullptr && stabilised->is_bool() && stabilised->get_bool();
  return static_cast<float>(alpha->to_number<double>()) / (root ? std::sqrt(rank) : rank);
}

}  // namespace octavo::weights
