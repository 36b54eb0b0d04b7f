// The CUDA rows of the attention table that are libraries' work.
#pragma once

#include <cuda_runtime_api.h>

#include <array>

#include "ops/attention/attention.h"

namespace octavo::ops {

bool attention_cudnn_supports(const AttentionArgs& args, const DeviceTraits& traits);
std::size_t attention_cudnn_scratch_bytes(const ExecutionContext& context, const AttentionArgs& args);
void attention_cudnn(ExecutionContext& context, const AttentionArgs& args, void* scratch);

bool attention_cudnn_fp8_supports(const AttentionArgs& args, const DeviceTraits& traits);
std::size_t attention_cudnn_fp8_scratch_bytes(const ExecutionContext& context, const AttentionArgs& args);
void attention_cudnn_fp8(ExecutionContext& context, const AttentionArgs& args, void* scratch);
/// The scalars of a call, each in its own 16 bytes of device memory, as cuDNN wants bound tensors to lie.
inline constexpr std::size_t kScalarCount = 7, kScalarBytes = 16;
void write_scalars(cudaStream_t stream, const std::array<float, kScalarCount>& values, void* to);

bool attention_unfused_supports(const AttentionArgs& args, const DeviceTraits& traits);
std::size_t attention_unfused_scratch_bytes(const ExecutionContext& context, const AttentionArgs& args);
void attention_unfused(ExecutionContext& context, const AttentionArgs& args, void* scratch);

/// Rows of scores, one after another for every query of every head, become weights in their place.
struct SoftmaxRows {
  float* scores = nullptr;       // f32; weights of `weights` dtype lie where the row's scores begin
  std::int64_t row_stride = 0;   // in f32 elements
  std::int64_t head_stride = 0;  // likewise
  std::int64_t heads = 0, queries = 0, keys = 0;
  std::int64_t first_query = 0;  // of the rows, for the causal mask
  const float* bias = nullptr;   // added to the first row of the first head; null = none
  std::int64_t bias_row_stride = 0, bias_head_stride = 0;
  bool causal = false;
  DType weights = DType::kBF16;  // or f32
};
void softmax_rows(ExecutionContext& context, const SoftmaxRows& rows);

}  // namespace octavo::ops
