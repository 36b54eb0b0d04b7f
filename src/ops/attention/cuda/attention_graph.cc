#include "ops/attention/cuda/attention_graph.h"

#include <fmt/ranges.h>

namespace octavo::ops {

using device::cuda::CudnnGraph;

std::string AttentionProblem::key() const {
  return fmt::format("attention {}x{} {}x{} of {}, strides {} {} {} {}", batch, heads, queries, keys, width,
                     fmt::join(q, ","), fmt::join(k, ","), fmt::join(v, ","), fmt::join(out, ","));
}

CudnnGraph AttentionProblem::graph() const {
  CudnnGraph graph;
  const auto tensor = [&](std::int64_t tokens, const Strides& strides) {
    return graph.tensor(CUDNN_DATA_BFLOAT16, {batch, heads, tokens, width}, {strides[0], strides[1], strides[2], 1});
  };
  const auto q_tensor = tensor(queries, q), k_tensor = tensor(keys, k), v_tensor = tensor(keys, v);
  const auto factor = graph.host_scalar({1, 1, 1, 1});
  const auto out_tensor = tensor(queries, out);
  graph.attention(q_tensor, k_tensor, v_tensor, factor, out_tensor);
  return graph;
}

}  // namespace octavo::ops
