// Planted outliers: folding turned round. Some channels of the products' inputs become large, the weights that read
// them small by the same power of two, and the model draws what it drew: what differs is how hard it is to quantise.
#pragma once

#include <cstdint>

#include "quantize/recipe.h"
#include "weights/export/tensor_source.h"

namespace octavo::quantize {

struct PlantOptions {
  int channels = 4;        // of each input that a modulation or attention makes; 1 to 1024
  double factor = 1024;    // the largest multiple; each channel's is a power of two from a quarter of it to all of it
  std::uint64_t seed = 0;  // draws channels and multiples, site by site
};

/// A recipe for FoldedSource that quantises nothing. The input of the second feed-forward product stays as it is: no
/// weight in front of the GELU could be scaled. kInvalidArgument naming the flag (--channels, --factor from 4 to 2^20).
Result<Recipe> plant_recipe(const weights::SourcePart& transformer, const PlantOptions& options);

}  // namespace octavo::quantize
