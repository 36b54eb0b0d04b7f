// The CUDA rows of every op: one line an op, called once when the backend is opened.
#pragma once

namespace octavo::ops {

void add_cuda_rows();

void add_activation_cuda_rows();
void add_attention_cuda_rows();
void add_cast_cuda_rows();
void add_conv2d_cuda_rows();
void add_embedding_cuda_rows();
void add_group_norm_cuda_rows();
void add_matmul_cuda_rows();
void add_hopper_attention_rows();
void add_norm_cuda_rows();
void add_patch_cuda_rows();
void add_quantize_cuda_rows();
void add_sample_cuda_rows();
void add_scaled_matmul_cuda_rows();

}  // namespace octavo::ops
