// A convolution as one graph of cuDNN: what the row runs and what the tests ask every architecture about.
#pragma once

#include <string>

#include "device/cuda/cudnn_graph.h"
#include "tensor/dtype.h"

namespace octavo::ops {

/// Channels last throughout. Tensors in the order of binding: x, weight, then residual and bias if there are any, out.
struct ConvProblem {
  std::int64_t batch = 1, height = 1, width = 1;  // of x
  std::int64_t in_channels = 8, out_channels = 8;
  std::int64_t kernel = 3;  // a side
  std::int64_t stride = 1;
  device::cuda::CudnnGraph::Padding rows, columns;
  DType x = DType::kBF16;    // and weight's
  DType out = DType::kBF16;  // and residual's
  bool bias = false;         // [Cout]
  DType bias_dtype = DType::kBF16;
  bool residual = false;

  std::int64_t out_height() const { return (height + rows.before + rows.after - kernel) / stride + 1; }
  std::int64_t out_width() const { return (width + columns.before + columns.after - kernel) / stride + 1; }
  std::string key() const;
  device::cuda::CudnnGraph graph() const;
};

}  // namespace octavo::ops
