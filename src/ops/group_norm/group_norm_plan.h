// How the vectorised row cuts its work.
#pragma once

#include <cstdint>

namespace octavo::ops {

/// 256 pixels of 96 channels are 96 KiB of f32. Fixed, because the order of the sums follows from it.
inline constexpr std::int64_t kBlockPixels = 256;

struct GroupNormPlan {
  std::int64_t batch = 0;
  std::int64_t pixels = 0;  // of one batch row
  std::int64_t channels = 0;
  std::int64_t blocks = 0;  // of one batch row
};

constexpr std::int64_t group_norm_blocks(std::int64_t pixels) { return (pixels + kBlockPixels - 1) / kBlockPixels; }

}  // namespace octavo::ops
