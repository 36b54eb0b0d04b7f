// Attention on Hopper GPUs (sm_90a): own kernels, and what feeds them.
#include "ops/attention/attention_kernels.h"
#include "ops/attention/cuda/attention_hopper.h"
#include "ops/attention/cuda/split_heads.h"
#include "ops/cuda/cuda_rows.h"

namespace octavo::ops {

void add_hopper_attention_rows() {
  static constexpr KernelRow<AttentionArgs> kAttention[] = {{.name = kHopperAttentionRow,
                                                             .device = DeviceKind::kCuda,
                                                             .supports = attention_hopper_supports,
                                                             .run = attention_hopper}};
  static constexpr KernelRow<QkvSplitNormArgs> kSplit[] = {
      {.name = "heads64", .device = DeviceKind::kCuda, .supports = split_heads_supports, .run = split_heads}};
  attention_table().add_rows(kAttention);
  qkv_split_norm_table().add_rows(kSplit);
}

}  // namespace octavo::ops
