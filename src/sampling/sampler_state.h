// SamplerState: a denoise loop as a value. Park it at any step border, store its bytes, resume it later or elsewhere:
// the pictures are the same bit for bit on the same kind of device and build.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "sampling/noise.h"
#include "sampling/sampler.h"
#include "tensor/tensor.h"

namespace octavo::sampling {

struct SamplerState {
  std::string sampler;                      // a row's name
  std::vector<float> sigmas;                // steps + 1 values, the last is 0
  int step = 0;                             // steps done
  Shape shape;                              // [B, C, height, width]
  std::vector<TorchCpuGenerator> noise;     // one for each of the B pictures
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

/// Before the first step: latents of picture i are torch.randn([1, C, height, width]) of seed + i, times sigmas[0].
/// `shape` is [B, C, height, width].
SamplerState initial_state(const SamplerRow& row, std::vector<float> sigmas, const Shape& shape, std::int64_t seed);

}  // namespace octavo::sampling
