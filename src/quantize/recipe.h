// Recipe: what is to be done to each Linear of a transformer, decided by policy and calibration and carried out by the
// writer of the quantised checkpoint. Plain values, no weights; what --explain prints and what a checkpoint's
// provenance says come from here.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/dtype.h"
#include "tensor/quantized.h"

namespace octavo::quantize {

/// How a quantised Linear gets its input into 8 bits.
enum class Activations {
  kToken,   // one scale a token, measured while running
  kStatic,  // one scale for every input, from calibration
  kBlock,   // one scale for each 128 elements of a token, measured while running
  kNone,    // not at all: 16-bit input, the weight is widened (W8A16)
};

/// The words of --format ("e4m3", "e5m2", "int8"), --weights ("tensor", "channel", "block") and --activations ("token",
/// "static", "block", "none"); kInvalidArgument naming `flag` for anything else.
Result<DType> parse_format(const std::string& word, const std::string& flag);
Result<ScaleGrain> parse_weight_grain(const std::string& word, const std::string& flag);
Result<Activations> parse_activations(const std::string& word, const std::string& flag);
std::string_view format_word(DType format);
std::string_view weight_grain_word(ScaleGrain grain);
std::string_view activations_word(Activations activations);

/// Layers that see one input (q, k, v of a stream) carry equal `static_amax`, `smooth` and `outliers`: they are one
/// product when the model runs.
struct LayerRecipe {
  std::string layer;                       // canonical name without ".weight": "transformer_blocks.0.attn.to_q"
  bool quantised = false;                  // false: 16 bits, and nothing below counts but `smooth`
  std::string reason;                      // one line for people: why it is, or is not
  DType format = DType::kE4M3;             // of the weight: kE4M3 | kE5M2 | kI8
  DType activation_format = DType::kE4M3;  // of the input, likewise
  ScaleGrain weight_grain = ScaleGrain::kRow;
  Activations activations = Activations::kToken;
  float static_amax = 0.0f;     // with kStatic: the input magnitude that becomes the largest code
  std::vector<float> smooth;    // [K] or empty: the input arrives divided by it, the weight's columns are multiplied
  std::vector<int> outliers;    // ascending columns that stay in 16 bits beside the product
  double output_error = 0.0;    // squared error over squared output that calibration measured; 0 = not measured
  double velocity_error = 0.0;  // the same of the whole model when this layer alone is quantised; 0 = not measured
  bool operator==(const LayerRecipe&) const = default;
};

/// What the statistics behind a recipe come from; goes into the checkpoint's provenance.
struct CalibrationRecord {
  std::string prompts_hash;  // SHA-256 over prompts and negative prompts
  std::string tokens_hash;   // SHA-256 over what the model's tokenizers make of them
  std::int64_t prompts = 0;
  std::int64_t steps = 0;
  std::int64_t seed = 0;
  std::int64_t width = 0, height = 0;  // pixels
  double guidance_scale = 0.0;
  double shift = 0.0;      // of the schedule
  std::string arithmetic;  // of the activations that were seen: "f32", "bf16"
  std::string model_hash;  // of the model that ran: weights::digest_source
  bool operator==(const CalibrationRecord&) const = default;
};

struct Recipe {
  std::vector<LayerRecipe> layers;               // every Linear of the transformer, in the order of the file
  std::optional<CalibrationRecord> calibration;  // absent: nothing was run
  // What was asked for; a layer may differ, its reason says why.
  DType format = DType::kE4M3;
  DType activation_format = DType::kE4M3;
  ScaleGrain weight_grain = ScaleGrain::kRow;
  Activations activations = Activations::kToken;
  double smooth_alpha = 0.0;       // 0 = no smoothing
  int outliers = 0;                // most channels a layer; 0 = no splitting
  std::string policy = "default";  // "default", "auto", or the file's name
  bool operator==(const Recipe&) const = default;

  /// Null for a layer that the recipe does not name.
  const LayerRecipe* find(std::string_view layer) const;
  /// The first quantised layer whose input has a static scale, which calibration finds; null when none has.
  const LayerRecipe* find_static() const;
};

/// Numbers survive the round trip bit for bit.
boost::json::object to_json(const Recipe& recipe);
boost::json::object to_json(const LayerRecipe& layer);
boost::json::object to_json(const CalibrationRecord& record);
/// kDataCorruption naming `file` and the member that is missing, of another type or not a word of the list.
Result<Recipe> recipe_from_json(const boost::json::object& json, const std::string& file);
Result<CalibrationRecord> calibration_record_from_json(const boost::json::object& json, const std::string& file);

}  // namespace octavo::quantize
