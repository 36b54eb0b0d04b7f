// Sites: the inputs of a transformer's quantised products, and what makes each. Layers that read one input are one
// site: they share statistics, smoothing and split channels, because the model computes them from one tensor.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "weights/export/tensor_source.h"

namespace octavo::quantize {

struct Site {
  /// What an input's channels can be divided through without a run-time cost.
  enum class Producer {
    kModulation,  // a norm's shift and scale: rows of the modulation that makes them
    kValues,      // attention's output: rows of the value projections, whose tokens are summed, never mixed by channel
    kActivation,  // the feed-forward's GELU: nothing; a multiplier has to run
  };
  std::vector<std::string> readers;  // layers without ".weight"; the first names the site
  std::int64_t channels = 0;
  Producer producer = Producer::kActivation;
  std::vector<std::string> makers;  // the modulation, or the value projections
  int shift_chunk = 0;              // of kModulation: which `channels` rows of the maker are the shift
  int scale_chunk = 0;              // ... and the scale (stored without its 1)

  const std::string& name() const { return readers.front(); }
};

/// Every site of the blocks of a transformer, block by block; told from names and shapes (reference: the chunk orders
/// of diffusers' AdaLayerNormZero, SD35AdaLayerNormZeroX and AdaLayerNormContinuous).
std::vector<Site> sites_of(const weights::SourcePart& transformer);

/// Null for a layer that is at no site (modulations, embedders).
const Site* site_of(const std::vector<Site>& sites, std::string_view layer);

}  // namespace octavo::quantize
