// What vae/config.json says, shared by encoder and decoder.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace octavo::models {

struct AutoencoderConfig {
  std::vector<std::int64_t> channels;  // block_out_channels, outermost first
  int layers_per_block = 2;
  std::int64_t latent_channels = 16;
  int groups = 32;
  float scaling_factor = 1.5305f;
  float shift_factor = 0.0609f;

  /// Pixels a side for one latent.
  int downscale() const { return 1 << (channels.size() - 1); }
  static Result<AutoencoderConfig> from_json(const boost::json::object& config, const std::string& file);
};

/// How encoder and decoder use memory.
struct AutoencoderMemory {
  /// Pictures of more pixels are worked on in bands (banded_map.h).
  std::int64_t whole_pixels = std::int64_t{1} << 20;
  std::int64_t band_elements = std::int64_t{1} << 24;  // of a band's widest tensor
};

}  // namespace octavo::models
