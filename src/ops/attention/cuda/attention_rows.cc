#include "ops/attention/cuda/attention_rows.h"

#include "ops/cuda/cuda_rows.h"

namespace octavo::ops {

void add_attention_cuda_rows() {
  static const KernelRow<AttentionArgs> rows[] = {{.name = "cudnn",
                                                   .device = DeviceKind::kCuda,
                                                   .supports = attention_cudnn_supports,
                                                   .scratch_bytes = attention_cudnn_scratch_bytes,
                                                   .run = attention_cudnn},
                                                  {.name = "cudnn_fp8",
                                                   .device = DeviceKind::kCuda,
                                                   .supports = attention_cudnn_fp8_supports,
                                                   .scratch_bytes = attention_cudnn_fp8_scratch_bytes,
                                                   .run = attention_cudnn_fp8},
                                                  {.name = "unfused",
                                                   .device = DeviceKind::kCuda,
                                                   .supports = attention_unfused_supports,
                                                   .scratch_bytes = attention_unfused_scratch_bytes,
                                                   .run = attention_unfused}};
  attention_table().add_rows(rows);
}

}  // namespace octavo::ops
