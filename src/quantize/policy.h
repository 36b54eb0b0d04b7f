// Policy: which Linears of the transformer become 8 bits and which keep 16, as data. The default is for Stable
// Diffusion 3.5; a file of the same form replaces it.
#pragma once

#include <boost/json/object.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "quantize/recipe.h"
#include "weights/export/tensor_source.h"

namespace octavo::quantize {

/// The last rule whose pattern matches a layer's name decides; a layer that none matches keeps 16 bits.
struct PolicyRule {
  std::string pattern;  // "*" stands for any text, everything else for itself
  bool quantise = false;
  std::string reason;
  // Of the layers it decides, instead of the recipe's.
  std::optional<DType> format = {};
  std::optional<ScaleGrain> weight_grain = {};
  std::optional<Activations> activations = {};
};
using Policy = std::vector<PolicyRule>;

/// Products of the blocks in 8 bits; what makes modulations stored in 8 (int8, whose error on bell-shaped weights is 6
/// to 8 dB below E4M3's) and multiplied in 16; what embeds and the final product in 16.
Policy default_policy();

/// {"rules": [{"pattern": "transformer_blocks.*.ff.*", "quantise": true, "reason": "...", "format": "int8", "weights":
/// "channel", "activations": "none"}]}; kDataCorruption naming `file` and the rule. `reason` and the words of the flags
/// --format, --weights and --activations may be left out.
Result<Policy> policy_from_json(const boost::json::object& json, const std::string& file);
boost::json::object to_json(const Policy& policy);

struct Decision {
  bool quantise = false;
  std::string reason;
  std::optional<DType> format = {};
  std::optional<ScaleGrain> weight_grain = {};
  std::optional<Activations> activations = {};
};
Decision decide(const Policy& policy, std::string_view layer);

bool matches(std::string_view pattern, std::string_view layer);

/// The Linears of a transformer (all weights of two axes but the position table), by layer name, in the part's order.
std::vector<std::string> linear_layers(const weights::SourcePart& part);

struct RecipeOptions {
  DType format = DType::kE4M3;
  DType activation_format = DType::kE4M3;
  ScaleGrain weight_grain = ScaleGrain::kRow;
  Activations activations = Activations::kToken;
};
/// A recipe before calibration: the policy's decision for every Linear, and the formats asked for. With kStatic,
/// `static_amax` is still to come. kInvalidArgument when no layer would be quantised.
Result<Recipe> plan_recipe(const weights::SourcePart& part, const Policy& policy, const RecipeOptions& options);

}  // namespace octavo::quantize
