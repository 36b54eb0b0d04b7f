// --policy auto: products ranked by what their 8 bits cost, and the worst of them given their 16 bits back under a
// budget of bytes.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "quantize/recipe.h"
#include "quantize/sites.h"
#include "weights/export/tensor_source.h"

namespace octavo::quantize {

/// Layers that keep or get their bits together: one product when the model runs (q, k, v), or one layer.
struct Purchase {
  std::vector<std::string> layers;
  double output_error = 0;    // mean of the layers'
  double velocity_error = 0;  // of the model when these alone are in 8 bits; 0 = not measured
  std::size_t bytes = 0;      // that 16 bits cost more than 8
  std::size_t rank = 0;       // from 1, the most error a byte first
  bool bought = false;

  /// What the ranking goes by.
  double error() const { return velocity_error > 0 ? velocity_error : output_error; }
};

/// The recipe's quantised products, unranked. `transformer` has their shapes.
std::vector<Purchase> purchases_of(const Recipe& recipe, const std::vector<Site>& sites,
                                   const weights::SourcePart& transformer);

/// The recipe with every layer but these in 16 bits; what is folded into weights stays.
Recipe alone(const Recipe& recipe, const std::vector<std::string>& layers);

/// Bytes of a budget: "1500000", "20M", "1.5G" (powers of 1000), or "5%" of what the purchases' 8-bit weights take
/// (modulations and T5 are not among them). kInvalidArgument naming --budget.
Result<std::size_t> parse_budget(const std::string& text, const std::vector<Purchase>& purchases);

/// Ranks by error a byte, buys in that order whatever still fits, and writes both into the reasons of the layers. All
/// purchases were measured alike.
void buy_back(Recipe& recipe, std::vector<Purchase>& purchases, std::size_t budget);

}  // namespace octavo::quantize
