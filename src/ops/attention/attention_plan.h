// How the flash row cuts its work.
#pragma once

#include "ops/attention/attention.h"

namespace octavo::ops {

inline constexpr int kQueryTile = 24;      // four groups of 6 rows: what 32 registers hold
inline constexpr int kPanelKeys = 64;      // four AVX-512 vectors
inline constexpr int kKeyBlock = 512;      // a tile of scores is 48 KiB, in the second-level cache; fewer rescalings
inline constexpr int kMaxHeadWidth = 512;  // the autoencoder's one head; bounds the tile on the stack

struct AttentionPlan {
  bool bf16 = false;             // products of bf16 pairs; else f32, widened while packed
  std::int64_t depth = 0;        // of the score product: Dh, or Dh / 2 pairs
  std::int64_t panels = 0;       // of each head
  std::int64_t query_tiles = 0;  // of each head
  std::size_t key_bytes = 0;     // scratch: key panels, then values (none when they are read in place)
  std::size_t value_bytes = 0;
};

AttentionPlan plan_attention(const AttentionArgs& args, const DeviceTraits& traits);

}  // namespace octavo::ops
