// Attention as graphs of cuDNN: what the rows run and what the tests ask every architecture about.
#pragma once

#include <array>
#include <string>

#include "device/cuda/cudnn_graph.h"
#include "ops/attention/attention.h"

namespace octavo::ops {

/// Neither bias nor mask.
struct AttentionProblem {
  std::int64_t batch = 1, heads = 1, queries = 1, keys = 1, width = 64;
  using Strides = std::array<std::int64_t, 3>;  // batch, head, token; the head's width lies innermost
  Strides q{}, k{}, v{}, out{};
  /// From arguments whose v has k's shape.
  static AttentionProblem of(const AttentionArgs& args);
  std::string words() const;
};

/// All in bf16, one operation. Bound: q, k, v, the factor of the scores on the host, out.
std::string attention_key(const AttentionProblem& problem);
device::cuda::CudnnGraph attention_graph(const AttentionProblem& problem);

/// All in E4M3, with P in E4M3 times kWeightQuantScale: spelled out, for cuDNN has no single operation of it. Bound,
/// f32 scalars of device memory but where said: q, k, v, the factor of the scores on the host, dequant scales of q and
/// k, the largest weight (written), the weights' quant scale, their dequant scale, v's, the quant scale of out, out,
/// the largest magnitude before it (written).
std::string fp8_attention_key(const AttentionProblem& problem);
device::cuda::CudnnGraph fp8_attention_graph(const AttentionProblem& problem);
inline constexpr float kWeightQuantScale = 448.0f;  // softmax gives weights up to 1, E4M3 holds 448

}  // namespace octavo::ops
