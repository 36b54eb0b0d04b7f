#include "quantize/recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <span>
#include <utility>

namespace octavo::quantize {
namespace {

template <typename Value>
using Words = std::span<const std::pair<std::string_view, Value>>;

constexpr std::array<std::pair<std::string_view, DType>, 3> kFormats = {
    {{"e4m3", DType::kE4M3}, {"e5m2", DType::kE5M2}, {"int8", DType::kI8}}};
constexpr std::array<std::pair<std::string_view, ScaleGrain>, 3> kGrains = {
    {{"channel", ScaleGrain::kRow}, {"tensor", ScaleGrain::kTensor}, {"block", ScaleGrain::kBlock128}}};
constexpr std::array<std::pair<std::string_view, Activations>, 4> kActivations = {{{"token", Activations::kToken},
                                                                                   {"static", Activations::kStatic},
                                                                                   {"block", Activations::kBlock},
                                                                                   {"none", Activations::kNone}}};

template <typename Value>
Result<Value> parse_word(Words<Value> words, const std::string& word, const std::string& subject) {
  std::string known;
  for (const auto& [name, value] : words) {
    if (name == word) return value;
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  return invalid_argument(subject, "'" + word + "' is none of " + known);
}

template <typename Value>
std::string_view word_of(Words<Value> words, Value wanted) {
  const auto found = std::find_if(words.begin(), words.end(), [&](const auto& row) { return row.second == wanted; });
  OCTAVO_CHECK(found != words.end(), "value {} has no word", static_cast<int>(wanted));
  return found->first;
}

/// Typed reads of members; the first failure is kept, later reads give defaults.
class Reader {
 public:
  Reader(const boost::json::object& object, std::string place, Status& status)
      : object_(object), place_(std::move(place)), status_(status) {}

  std::string text(std::string_view key) {
    const auto* value = find(key);
    if (value == nullptr || !value->is_string()) return fail(key, "text"), std::string();
    return std::string(value->get_string());
  }
  bool truth(std::string_view key) {
    const auto* value = find(key);
    if (value == nullptr || !value->is_bool()) return fail(key, "true or false"), false;
    return value->get_bool();
  }
  std::int64_t integer(std::string_view key) {
    const auto* value = find(key);
    if (value == nullptr || !value->is_int64()) return fail(key, "a whole number"), 0;
    return value->get_int64();
  }
  double number(std::string_view key) {
    const auto* value = find(key);
    if (value == nullptr || !value->is_number()) return fail(key, "a number"), 0.0;
    return value->to_number<double>();
  }
  const boost::json::array* list(std::string_view key) {
    const auto* value = find(key);
    if (value == nullptr || !value->is_array()) return fail(key, "a list"), nullptr;
    return &value->get_array();
  }
  template <typename Value>
  Value word(std::string_view key, Words<Value> words) {
    const std::string name = text(key);
    if (!status_.ok()) return words.front().second;
    auto value = parse_word(words, name, place_ + "." + std::string(key));
    if (value.ok()) return *value;
    status_ = data_corruption(value.status().subject(), value.status().message());
    return words.front().second;
  }
  void fail(std::string_view key, std::string_view wanted) {
    if (status_.ok()) status_ = data_corruption(place_, fmt::format("\"{}\" is not {}", key, wanted));
  }

 private:
  const boost::json::value* find(std::string_view key) const { return object_.if_contains(key); }
  const boost::json::object& object_;
  std::string place_;
  Status& status_;
};

LayerRecipe read_layer(const boost::json::object& json, const std::string& place, Status& status) {
  Reader in(json, place, status);
  LayerRecipe layer;
  layer.layer = in.text("layer");
  layer.quantised = in.truth("quantised");
  layer.reason = in.text("reason");
  layer.format = in.word<DType>("format", kFormats);
  layer.activation_format = in.word<DType>("activation_format", kFormats);
  layer.weight_grain = in.word<ScaleGrain>("weights", kGrains);
  layer.activations = in.word<Activations>("activations", kActivations);
  layer.static_amax = static_cast<float>(in.number("static_amax"));
  layer.output_error = in.number("output_error");
  layer.velocity_error = in.number("velocity_error");
  if (const auto* smooth = in.list("smooth")) {
    for (const auto& value : *smooth) {
      if (!value.is_number()) in.fail("smooth", "a list of numbers");
      layer.smooth.push_back(value.is_number() ? static_cast<float>(value.to_number<double>()) : 1.0f);
    }
  }
  if (const auto* outliers = in.list("outliers")) {
    for (const auto& value : *outliers) {
      if (!value.is_int64()) in.fail("outliers", "a list of whole numbers");
      layer.outliers.push_back(value.is_int64() ? static_cast<int>(value.get_int64()) : 0);
    }
  }
  return layer;
}

CalibrationRecord read_calibration(const boost::json::object& json, const std::string& place, Status& status) {
  Reader in(json, place, status);
  CalibrationRecord record;
  record.prompts_hash = in.text("prompts_hash");
  record.tokens_hash = in.text("tokens_hash");
  record.prompts = in.integer("prompts");
  record.steps = in.integer("steps");
  record.seed = in.integer("seed");
  record.width = in.integer("width");
  record.height = in.integer("height");
  record.guidance_scale = in.number("guidance_scale");
  record.shift = in.number("shift");
  record.arithmetic = in.text("arithmetic");
  record.model_hash = in.text("model_hash");
  return record;
}

}  // namespace

Result<DType> parse_format(const std::string& word, const std::string& flag) {
  return parse_word<DType>(kFormats, word, flag);
}
Result<ScaleGrain> parse_weight_grain(const std::string& word, const std::string& flag) {
  return parse_word<ScaleGrain>(kGrains, word, flag);
}
Result<Activations> parse_activations(const std::string& word, const std::string& flag) {
  return parse_word<Activations>(kActivations, word, flag);
}
std::string_view format_word(DType format) { return word_of<DType>(kFormats, format); }
std::string_view weight_grain_word(ScaleGrain grain) { return word_of<ScaleGrain>(kGrains, grain); }
std::string_view activations_word(Activations activations) { return word_of<Activations>(kActivations, activations); }

const LayerRecipe* Recipe::find(std::string_view layer) const {
  const auto found =
      std::find_if(layers.begin(), layers.end(), [&](const LayerRecipe& one) { return one.layer == layer; });
  return found == layers.end() ? nullptr : &*found;
}

const LayerRecipe* Recipe::find_static() const {
  const auto found = std::find_if(layers.begin(), layers.end(), [](const LayerRecipe& one) {
    return one.quantised && one.activations == Activations::kStatic;
  });
  return found == layers.end() ? nullptr : &*found;
}

boost::json::object to_json(const CalibrationRecord& record) {
  return {{"prompts_hash", record.prompts_hash},
          {"tokens_hash", record.tokens_hash},
          {"prompts", record.prompts},
          {"steps", record.steps},
          {"seed", record.seed},
          {"width", record.width},
          {"height", record.height},
          {"guidance_scale", record.guidance_scale},
          {"shift", record.shift},
          {"arithmetic", record.arithmetic},
          {"model_hash", record.model_hash}};
}

boost::json::object to_json(const LayerRecipe& layer) {
  boost::json::array smooth, outliers;
  for (const float value : layer.smooth) smooth.emplace_back(value);
  for (const int column : layer.outliers) outliers.emplace_back(column);
  return {{"layer", layer.layer},
          {"quantised", layer.quantised},
          {"reason", layer.reason},
          {"format", format_word(layer.format)},
          {"activation_format", format_word(layer.activation_format)},
          {"weights", weight_grain_word(layer.weight_grain)},
          {"activations", activations_word(layer.activations)},
          {"static_amax", layer.static_amax},
          {"output_error", layer.output_error},
          {"velocity_error", layer.velocity_error},
          {"smooth", std::move(smooth)},
          {"outliers", std::move(outliers)}};
}

boost::json::object to_json(const Recipe& recipe) {
  boost::json::array layers;
  for (const LayerRecipe& layer : recipe.layers) layers.emplace_back(to_json(layer));
  boost::json::value calibration;
  if (recipe.calibration) calibration = to_json(*recipe.calibration);
  return {{"format", format_word(recipe.format)},
          {"activation_format", format_word(recipe.activation_format)},
          {"weights", weight_grain_word(recipe.weight_grain)},
          {"activations", activations_word(recipe.activations)},
          {"smooth", recipe.smooth_alpha},
          {"outliers", recipe.outliers},
          {"policy", recipe.policy},
          {"calibration", std::move(calibration)},
          {"layers", std::move(layers)}};
}

Result<Recipe> recipe_from_json(const boost::json::object& json, const std::string& file) {
  Status status;
  Reader in(json, file, status);
  Recipe recipe;
  recipe.format = in.word<DType>("format", kFormats);
  recipe.activation_format = in.word<DType>("activation_format", kFormats);
  recipe.weight_grain = in.word<ScaleGrain>("weights", kGrains);
  recipe.activations = in.word<Activations>("activations", kActivations);
  recipe.smooth_alpha = in.number("smooth");
  recipe.outliers = static_cast<int>(in.integer("outliers"));
  recipe.policy = in.text("policy");
  const auto* calibration = json.if_contains("calibration");
  if (calibration != nullptr && calibration->is_object()) {
    recipe.calibration = read_calibration(calibration->get_object(), file + ": calibration", status);
  } else if (calibration == nullptr || !calibration->is_null()) {
    in.fail("calibration", "an object or null");
  }
  if (const auto* layers = in.list("layers")) {
    for (const auto& layer : *layers) {
      if (!layer.is_object()) {
        in.fail("layers", "a list of objects");
        break;
      }
      const std::string place = fmt::format("{}: layers[{}]", file, recipe.layers.size());
      recipe.layers.push_back(read_layer(layer.get_object(), place, status));
    }
  }
  if (!status.ok()) return status;
  return recipe;
}

Result<CalibrationRecord> calibration_record_from_json(const boost::json::object& json, const std::string& file) {
  Status status;
  CalibrationRecord record = read_calibration(json, file, status);
  if (!status.ok()) return status;
  return record;
}

}  // namespace octavo::quantize
