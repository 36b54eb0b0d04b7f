// SamplerState: a denoise loop as a value. Park it at any step border, store its bytes, resume it later or elsewhere:
// the pictures are the same bit for bit on the same kind of device and build.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "sampling/initial_noise.h"
#include "sampling/sampler.h"
#include "sampling/schedule.h"
#include "tensor/tensor.h"

namespace octavo::sampling {

struct SamplerState {
  std::string sampler;                      // a row's name
  std::vector<float> sigmas;                // steps + 1 values, the last is 0
  int step = 0;                             // steps done
  Shape shape;                              // [B, C, height, width]
  SamplerOptions options;                   // eta and s_noise
  std::vector<NoiseStream> noise;           // one for each of the B pictures
  std::vector<float> latents;               // shape's elements
  std::vector<std::vector<float>> history;  // the row's history_count tensors

  int steps() const { return static_cast<int>(sigmas.size()) - 1; }
  bool finished() const { return step >= steps(); }

  /// A versioned, little-endian, self-describing block with a checksum.
  std::vector<std::byte> to_bytes() const;
  /// kDataCorruption (subject "sampler state") for anything that to_bytes() did not write; never trusts a length.
  static Result<SamplerState> from_bytes(std::span<const std::byte> bytes);

  bool operator==(const SamplerState& other) const = default;
};

/// Before the first step of `schedule`: sigmas[0] * noise + (1 - sigmas[0]) * image, with the noise of pictures[i] for
/// picture i. `shape` is [B, C, height, width], B = pictures.size(); `image_latents` has its elements, or is empty for
/// zeros (nothing to start from). Rows that need a finite signal-to-noise ratio begin at schedule.below_one when the
/// schedule begins above it.
SamplerState initial_state(const SamplerRow& row, const Schedule& schedule, const SamplerOptions& options,
                           const Shape& shape, std::span<const NoiseOptions> pictures,
                           std::span<const float> image_latents = {});

/// States of several pictures at the same step of the same sampler, schedule and options as one of all their pictures,
/// in this order. kInvalidArgument (subject "states") when they differ, or there are none.
Result<SamplerState> join_states(std::span<const SamplerState* const> states);
/// A state a picture.
std::vector<SamplerState> split_state(const SamplerState& state);

}  // namespace octavo::sampling
