#include "ops/cuda/cuda_rows.h"

namespace octavo::ops {

void add_cuda_rows() {
  add_activation_cuda_rows();
  add_attention_cuda_rows();
  add_cast_cuda_rows();
  add_conv2d_cuda_rows();
  add_embedding_cuda_rows();
  add_group_norm_cuda_rows();
  add_matmul_cuda_rows();
  add_norm_cuda_rows();
  add_patch_cuda_rows();
  add_quantize_cuda_rows();
  add_sample_cuda_rows();
  add_scaled_matmul_cuda_rows();
  // Last, so that they come before the plain rows of the same tables.
  add_hopper_attention_rows();
}

}  // namespace octavo::ops
