#include "quantize/quantized_checkpoint.h"

#include <algorithm>
#include <boost/json.hpp>
#include <map>
#include <ranges>

#include "base/sha256.h"
#include "quantize/sites.h"
#include "weights/export/json_text.h"

namespace octavo::quantize {
namespace {

constexpr std::string_view kWeight = ".weight";

const weights::SourcePart* find_part(const std::vector<weights::SourcePart>& parts, weights::Part wanted) {
  const auto found = std::find_if(parts.begin(), parts.end(), [wanted](const auto& one) { return one.part == wanted; });
  return found == parts.end() ? nullptr : &*found;
}

/// The provenance's words and the recipe's are the same list (quantized_checkpoint_test.cc).
weights::ActivationForm form_of(Activations activations) {
  const auto form = weights::parse_activation_form(activations_word(activations));
  OCTAVO_CHECK(form.has_value(), "'{}' is no form of the file", activations_word(activations));
  return *form;
}

weights::QuantizationProvenance provenance_of(const QuantizedCheckpoint& checkpoint, const std::string& layers_hash) {
  const Recipe& recipe = *checkpoint.recipe;
  weights::QuantizationProvenance provenance;
  provenance.tool = checkpoint.tool;
  provenance.source = {{"hash", checkpoint.source.hash}, {"model", checkpoint.source.model}};
  if (!checkpoint.source.loras.empty()) {
    provenance.source["loras"] = boost::json::value_from(checkpoint.source.loras);
  }
  if (recipe.calibration) provenance.calibration = to_json(*recipe.calibration);
  provenance.recipe = {{"format", format_word(recipe.format)},
                       {"activation_format", format_word(recipe.activation_format)},
                       {"weights", weight_grain_word(recipe.weight_grain)},
                       {"activations", activations_word(recipe.activations)},
                       {"smooth", recipe.smooth_alpha},
                       {"outliers", recipe.outliers},
                       {"policy", recipe.policy}};
  provenance.activation_format = recipe.activation_format;
  provenance.activations = form_of(recipe.activations);
  provenance.layers_hash = layers_hash;
  return provenance;
}

/// T5's weights are widened: its activations exceed what E4M3 holds without calibration. Its embedding, whose rows have
/// a scale each, is of the same kind.
bool is_quantized_in_t5(const weights::SourceTensor& tensor) {
  return weights::is_scaled_layer(weights::Part::kTextEncoder3, tensor) || tensor.name == "shared.weight";
}

weights::QuantizationProvenance t5_provenance(const QuantizedCheckpoint& checkpoint, const std::string& layers_hash) {
  weights::QuantizationProvenance provenance = provenance_of(checkpoint, layers_hash);
  provenance.calibration.reset();
  provenance.recipe = {{"format", "e4m3"},
                       {"activation_format", "e4m3"},
                       {"weights", "channel"},
                       {"activations", "none"},
                       {"smooth", 0.0},
                       {"outliers", 0},
                       {"policy", "every linear layer and the embedding"}};
  provenance.activation_format = DType::kE4M3;
  provenance.activations = weights::ActivationForm::kNone;
  return provenance;
}

/// What people want to know of a layer; the smoothing itself is in the weights.
boost::json::object layer_in_words(const LayerRecipe& layer) {
  boost::json::object words{{"layer", layer.layer}, {"quantised", layer.quantised}, {"reason", layer.reason}};
  if (layer.output_error > 0) words["output_error"] = layer.output_error;
  if (layer.velocity_error > 0) words["velocity_error"] = layer.velocity_error;
  if (!layer.quantised) return words;
  words["format"] = format_word(layer.format);
  words["weights"] = weight_grain_word(layer.weight_grain);
  words["activations"] = activations_word(layer.activations);
  if (layer.activations != Activations::kNone) words["activation_format"] = format_word(layer.activation_format);
  if (layer.activations == Activations::kStatic) words["static_amax"] = layer.static_amax;
  if (!layer.smooth.empty()) {
    const auto [least, most] = std::minmax_element(layer.smooth.begin(), layer.smooth.end());
    words["smooth"] = {{"least", *least}, {"most", *most}};
  }
  if (!layer.outliers.empty()) words["outliers"] = boost::json::value_from(layer.outliers);
  return words;
}

Result<weights::QuantizedLayer> quantized_layer(const QuantizedCheckpoint& checkpoint, const LayerRecipe& layer,
                                                const Shape& shape) {
  if (layer.activations != Activations::kNone && layer.activation_format != checkpoint.recipe->activation_format) {
    return invalid_argument(layer.layer, "has activations of another format than the recipe: a file has one");
  }
  if (layer.activations != Activations::kNone &&
      (layer.format == DType::kI8) != (layer.activation_format == DType::kI8)) {
    return invalid_argument(layer.layer, fmt::format("has {} weights and {} inputs: a product takes two FP8 formats or "
                                                     "int8 twice; with activations none it can be mixed",
                                                     format_word(layer.format), format_word(layer.activation_format)));
  }
  weights::QuantizedLayer how{.format = layer.format, .grain = layer.weight_grain};
  if (layer.activations == Activations::kStatic) {
    if (!(layer.static_amax > 0)) return invalid_argument(layer.layer, "is static and was not calibrated");
    how.input_scale = dequant_scale_of(layer.static_amax, layer.activation_format);
  }
  if (checkpoint.multiplier) how.input_multiplier = checkpoint.multiplier(layer.layer);
  for (const int column : layer.outliers) {
    if (column < 0 || column >= shape[1] || (!how.outliers.empty() && column <= how.outliers.back())) {
      return invalid_argument(layer.layer,
                              fmt::format("has the outlier {} of {} inputs, in no ascending order", column, shape[1]));
    }
    how.outliers.push_back(column);
  }
  return how;
}

/// Layers that read one input are one product (q, k and v): whoever loads them wants them alike, or not all in 8 bits.
Status check_joined_layers(const weights::SourcePart& transformer, const Recipe& recipe) {
  std::map<std::string_view, const LayerRecipe*> quantised;
  for (const LayerRecipe& layer : recipe.layers) {
    if (layer.quantised) quantised.emplace(layer.layer, &layer);
  }
  for (const Site& site : sites_of(transformer)) {
    if (site.producer != Site::Producer::kModulation) continue;
    const bool joined = std::ranges::all_of(
        site.readers, [&quantised](const std::string& reader) { return quantised.contains(reader); });
    if (!joined) continue;
    const LayerRecipe& first = *quantised.at(site.readers.front());
    for (const std::string& reader : site.readers) {
      const LayerRecipe& other = *quantised.at(reader);
      if (other.format == first.format && other.activations == first.activations &&
          (other.weight_grain == ScaleGrain::kBlock128) == (first.weight_grain == ScaleGrain::kBlock128)) {
        continue;
      }
      return invalid_argument("--policy",
                              fmt::format("{} and {} read one input: give them the same format, weights and "
                                          "activations",
                                          first.layer, other.layer));
    }
  }
  return {};
}

}  // namespace

Result<weights::ExportPlan> plan_quantized_checkpoint(const std::vector<weights::SourcePart>& parts,
                                                      const QuantizedCheckpoint& checkpoint) {
  const weights::SourcePart* transformer = find_part(parts, weights::Part::kTransformer);
  if (transformer == nullptr) return invalid_argument("--model", "has no transformer, whose products are quantised");
  std::map<std::string_view, const weights::SourceTensor*> tensors;
  for (const auto& tensor : transformer->tensors) tensors.emplace(tensor.name, &tensor);

  weights::QuantizedPart quantized;
  std::map<std::string, weights::ActivationForm, std::less<>> exceptions;
  boost::json::array in_words;
  Sha256 decided;
  for (const LayerRecipe& layer : checkpoint.recipe->layers) {
    decided.update(boost::json::serialize(to_json(layer)) + "\n");
    in_words.push_back(layer_in_words(layer));
    if (!layer.quantised) continue;
    const auto found = tensors.find(layer.layer + std::string(kWeight));
    if (found == tensors.end() || found->second->shape.rank() != 2) {
      return invalid_argument(layer.layer, "is no matrix of the transformer");
    }
    OCTAVO_ASSIGN_OR_RETURN(auto how, quantized_layer(checkpoint, layer, found->second->shape));
    quantized.layers.emplace(layer.layer, std::move(how));
    if (layer.activations != checkpoint.recipe->activations) {
      exceptions.emplace(layer.layer, form_of(layer.activations));
    }
  }
  OCTAVO_RETURN_IF_ERROR(check_joined_layers(*transformer, *checkpoint.recipe));
  if (quantized.layers.empty()) return invalid_argument("--policy", "leaves every layer in 16 bits");

  const std::string layers_hash = decided.finish_hex();
  weights::QuantizationProvenance provenance = provenance_of(checkpoint, layers_hash);
  provenance.exceptions = std::move(exceptions);
  const std::string text = weights::provenance_text(provenance);
  quantized.metadata[std::string(weights::kProvenanceMetadata)] = text;

  weights::ExportOptions options{.shard_bytes = checkpoint.shard_bytes, .metadata = checkpoint.metadata};
  options.quantized.emplace(weights::Part::kTransformer, std::move(quantized));
  if (const auto* t5 = find_part(parts, weights::Part::kTextEncoder3); t5 != nullptr && checkpoint.quantize_t5) {
    weights::QuantizedPart part;
    for (const weights::SourceTensor& tensor : t5->tensors) {
      if (!is_quantized_in_t5(tensor)) continue;
      part.layers.emplace(tensor.name.substr(0, tensor.name.size() - kWeight.size()), weights::QuantizedLayer{});
    }
    part.metadata[std::string(weights::kProvenanceMetadata)] =
        weights::provenance_text(t5_provenance(checkpoint, layers_hash));
    if (!part.layers.empty()) options.quantized.emplace(t5->part, std::move(part));
  }
  OCTAVO_ASSIGN_OR_RETURN(weights::ExportPlan plan, weights::plan_export(parts, options));

  boost::json::object report = boost::json::parse(text).get_object();
  report["layers"] = std::move(in_words);
  plan.texts["transformer/quantization.json"] = weights::json_text(report);
  return plan;
}

std::vector<PartSize> part_sizes(const std::vector<weights::SourcePart>& parts, const weights::ExportPlan& plan) {
  std::vector<PartSize> sizes;
  PartSize total{"total"};
  for (const weights::SourcePart& part : parts) {
    PartSize size{std::string(weights::names_of(part.part).folder)};
    for (const weights::SourceTensor& tensor : part.tensors) {
      size.before += static_cast<std::size_t>(tensor.shape.element_count()) * dtype_size(tensor.dtype);
    }
    for (const weights::PlannedFile& file : plan.files) {
      if (file.path.starts_with(size.part + "/")) size.after += file.byte_count();
    }
    total.before += size.before;
    total.after += size.after;
    sizes.push_back(std::move(size));
  }
  sizes.push_back(std::move(total));
  return sizes;
}

Status check_not_quantized(const std::vector<weights::SourcePart>& parts, const std::string& model) {
  for (const weights::SourcePart& part : parts) {
    for (const weights::SourceTensor& tensor : part.tensors) {
      if (!weights::is_scaled_layer(part.part, tensor) || dtype_size(tensor.dtype) > 1) continue;
      return failed_precondition(model, fmt::format("is quantised already ({} is {}); start from the 16-bit weights",
                                                    tensor.name, dtype_name(tensor.dtype)));
    }
  }
  return {};
}

}  // namespace octavo::quantize
