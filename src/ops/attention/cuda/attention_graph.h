// Attention as one operation of cuDNN: what the row runs and what the tests ask every architecture about.
#pragma once

#include <array>
#include <string>

#include "device/cuda/cudnn_graph.h"

namespace octavo::ops {

/// 16-bit (bf16), neither bias nor mask. Bound: q, k, v, the factor of the scores on the host, out.
struct AttentionProblem {
  std::int64_t batch = 1, heads = 1, queries = 1, keys = 1, width = 64;
  using Strides = std::array<std::int64_t, 3>;  // batch, head, token; the head's width lies innermost
  Strides q{}, k{}, v{}, out{};
  std::string key() const;
  device::cuda::CudnnGraph graph() const;
};

}  // namespace octavo::ops
