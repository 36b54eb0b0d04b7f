#include "ops/attention/cuda/attention_graph.h"

#include <fmt/ranges.h>

namespace octavo::ops {

using device::cuda::CudnnGraph;

namespace {

CudnnGraph::Tensor tensor_of(CudnnGraph& graph, cudnnDataType_t type, const AttentionProblem& problem,
                             std::int64_t tokens, const AttentionProblem::Strides& strides) {
  return graph.tensor(type, {problem.batch, problem.heads, tokens, problem.width},
                      {strides[0], strides[1], strides[2], 1});
}

}  // namespace

AttentionProblem AttentionProblem::of(const AttentionArgs& args) {
  const auto strides = [](const TensorView& view) { return Strides{view.stride(0), view.stride(1), view.stride(2)}; };
  return {.batch = args.q.dim(0),
          .heads = args.q.dim(1),
          .queries = args.q.dim(2),
          .keys = args.k.dim(2),
          .width = args.q.dim(3),
          .q = strides(args.q),
          .k = strides(args.k),
          .v = strides(args.v),
          .out = {args.out.stride(0), args.q.dim(3), args.out.stride(1)}};
}

std::string AttentionProblem::words() const {
  return fmt::format("{}x{} {}x{} of {}, strides {} {} {} {}", batch, heads, queries, keys, width, fmt::join(q, ","),
                     fmt::join(k, ","), fmt::join(v, ","), fmt::join(out, ","));
}

std::string attention_key(const AttentionProblem& problem) { return "attention " + problem.words(); }

CudnnGraph attention_graph(const AttentionProblem& problem) {
  CudnnGraph graph;
  const auto tensor = [&](std::int64_t tokens, const AttentionProblem::Strides& strides) {
    return tensor_of(graph, CUDNN_DATA_BFLOAT16, problem, tokens, strides);
  };
  const auto q = tensor(problem.queries, problem.q), k = tensor(problem.keys, problem.k),
             v = tensor(problem.keys, problem.v);
  const auto factor = graph.host_scalar({1, 1, 1, 1});
  const auto out = tensor(problem.queries, problem.out);
  graph.attention(q, k, v, factor, out);
  return graph;
}

std::string fp8_attention_key(const AttentionProblem& problem) { return "fp8 attention " + problem.words(); }

CudnnGraph fp8_attention_graph(const AttentionProblem& problem) {
  using Tensor = CudnnGraph::Tensor;
  constexpr auto kCodes = CUDNN_DATA_FP8_E4M3, kF32 = CUDNN_DATA_FLOAT;
  const std::int64_t batch = problem.batch, heads = problem.heads, queries = problem.queries, keys = problem.keys;
  const CudnnGraph::Extents one{1, 1, 1, 1}, scores_shape{batch, heads, queries, keys},
      row_shape{batch, heads, queries, 1}, out_shape{batch, heads, queries, problem.width};
  CudnnGraph graph;
  const auto scalar = [&] { return graph.tensor(kF32, one, one); };
  const auto apply = [&](cudnnPointwiseMode_t mode, Tensor a, Tensor b, const CudnnGraph::Extents& shape,
                         cudnnDataType_t type = CUDNN_DATA_FLOAT) {
    const Tensor result = graph.between_matrices(type, shape);
    graph.pointwise(mode, a, b, result);
    return result;
  };
  const auto times = [&](Tensor x, Tensor factor, const CudnnGraph::Extents& shape) {
    return apply(CUDNN_POINTWISE_MUL, x, factor, shape);
  };
  const auto over_keys = [&](cudnnReduceTensorOp_t reduction, Tensor x) {
    const Tensor result = graph.between_matrices(kF32, row_shape);
    graph.reduce(reduction, x, result);
    return result;
  };
  const Tensor q = tensor_of(graph, kCodes, problem, queries, problem.q);
  const Tensor k_transposed =
      graph.tensor(kCodes, {batch, heads, problem.width, keys}, {problem.k[0], problem.k[1], 1, problem.k[2]});
  const Tensor v = tensor_of(graph, kCodes, problem, keys, problem.v);
  const Tensor factor = graph.host_scalar(one);
  const Tensor q_dequant_scale = scalar(), k_dequant_scale = scalar(), largest_weight = scalar(),
               weight_quant_scale = scalar(), weight_dequant_scale = scalar(), v_dequant_scale = scalar(),
               out_quant_scale = scalar();
  const Tensor out = tensor_of(graph, kCodes, problem, queries, problem.out);
  const Tensor largest_out = scalar();

  // cuDNN knows the pattern by its order; a step left out or moved, and no engine takes it.
  Tensor scores = graph.between_matrices(kF32, scores_shape);
  graph.matmul(q, k_transposed, scores);
  scores = times(scores, factor, scores_shape);
  scores = times(scores, q_dequant_scale, scores_shape);
  scores = times(scores, k_dequant_scale, scores_shape);
  const Tensor largest = over_keys(CUDNN_REDUCE_TENSOR_MAX, scores);
  const Tensor exponentials = apply(CUDNN_POINTWISE_EXP, apply(CUDNN_POINTWISE_SUB, scores, largest, scores_shape),
                                    CudnnGraph::kNone, scores_shape);
  const Tensor sum = over_keys(CUDNN_REDUCE_TENSOR_ADD, exponentials);
  // The logarithm of the sum, which training would keep and nobody here reads, belongs to the pattern.
  apply(CUDNN_POINTWISE_ADD, largest, apply(CUDNN_POINTWISE_LOG, sum, CudnnGraph::kNone, row_shape), row_shape);
  const Tensor weights = apply(CUDNN_POINTWISE_DIV, exponentials, sum, scores_shape);
  graph.reduce(CUDNN_REDUCE_TENSOR_AMAX, weights, largest_weight);
  Tensor values = graph.between_matrices(kF32, out_shape);
  graph.matmul(apply(CUDNN_POINTWISE_MUL, weights, weight_quant_scale, scores_shape, kCodes), v, values);
  values = times(values, weight_dequant_scale, out_shape);
  values = times(values, v_dequant_scale, out_shape);
  graph.pointwise(CUDNN_POINTWISE_MUL, values, out_quant_scale, out);
  graph.reduce(CUDNN_REDUCE_TENSOR_AMAX, values, largest_out);
  return graph;
}

}  // namespace octavo::ops
