#include "ops/conv2d/cuda/conv2d_graph.h"

#include <fmt/format.h>

namespace octavo::ops {
namespace {

using device::cuda::CudnnGraph;

cudnnDataType_t cudnn_type(DType dtype) { return dtype == DType::kBF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT; }

/// Strides of [B, C, H, W] whose channels lie innermost.
CudnnGraph::Extents channels_last(const CudnnGraph::Extents& extents) {
  return {extents[1] * extents[2] * extents[3], 1, extents[1] * extents[3], extents[1]};
}

}  // namespace

std::string ConvProblem::key() const {
  return fmt::format("conv2d {}x{}x{} {}->{} kernel {} stride {} pad {},{},{},{} {}->{}{}{}", batch, height, width,
                     in_channels, out_channels, kernel, stride, rows.before, rows.after, columns.before, columns.after,
                     dtype_name(x), dtype_name(out), bias ? fmt::format(" bias {}", dtype_name(bias_dtype)) : "",
                     residual ? " residual" : "");
}

CudnnGraph ConvProblem::graph() const {
  CudnnGraph graph;
  const CudnnGraph::Extents x_extents{batch, in_channels, height, width};
  const CudnnGraph::Extents weight_extents{out_channels, in_channels, kernel, kernel};
  const CudnnGraph::Extents out_extents{batch, out_channels, out_height(), out_width()};
  const CudnnGraph::Extents bias_extents{1, out_channels, 1, 1};
  const CudnnGraph::Extents out_strides = channels_last(out_extents);
  const auto x_tensor = graph.tensor(cudnn_type(x), x_extents, channels_last(x_extents));
  const auto weight_tensor = graph.tensor(cudnn_type(x), weight_extents, channels_last(weight_extents));
  CudnnGraph::Tensor addends[2] = {};
  int count = 0;
  // In this order, with a bias of x's type, cuDNN has kernels that need no compilation, and they are the fastest.
  if (residual) addends[count++] = graph.tensor(cudnn_type(out), out_extents, out_strides);
  if (bias) addends[count++] = graph.tensor(cudnn_type(bias_dtype), bias_extents, channels_last(bias_extents));
  const auto out_tensor = graph.tensor(cudnn_type(out), out_extents, out_strides);
  CudnnGraph::Tensor sum = count == 0 ? out_tensor : graph.between(out_extents);
  graph.convolution(x_tensor, weight_tensor, sum, stride, rows, columns);
  for (int i = 0; i < count; ++i) {
    const auto next = i + 1 == count ? out_tensor : graph.between(out_extents);
    graph.pointwise(CUDNN_POINTWISE_ADD, sum, addends[i], next);
    sum = next;
  }
  return graph;
}

}  // namespace octavo::ops
