// One product through cuBLASLt, with the algorithm that was fastest for its shape.
//
// cuBLASLt thinks in columns: the weight [width, inner] is its transposed A, x [rows, inner] its B, out [rows, width]
// its D; a vector over out's columns (bias, a weight's scales) is a vector over D's rows, which is what it offers.
//
// The first call with a shape asks for candidates and times them on the real operands (outside graph capture; inside it
// the first candidate serves); the choice is then fixed for the process and kept in d.cache_folder() for later ones.
// Where the library offers few, others that it accepts are timed too, and taken if they compute the same bits.
// Sums over K that are split and added up by several blocks differ in their low bits from those that are not, and how
// they are split depends on the shape; such algorithms are taken only where they win by kSplitGain.
#pragma once

#include <cublasLt.h>

#include <cstdint>

#include "device/cuda/cuda_device.h"

namespace octavo::ops {

/// All that decides which algorithms exist and how fast they are. Compared and stored as bytes: no padding.
struct LtShape {
  std::int32_t weight_type = 0, x_type = 0, out_type = 0;  // cudaDataType
  std::int32_t bias_type = -1;                             // -1: without bias
  std::int32_t integer = 0;                                // 1: products of i8, out of i32
  std::int32_t scaling = 0;                                // of 8-bit floats: LtScaling
  std::int32_t gelu = 0;                                   // 1: tanh GELU of the sum and bias
  std::int32_t adds = 0;                                   // 1: an addend of out's type is added
  std::int32_t alignment = 0;                              // of every pointer, filled in by run_lt_product
  std::int32_t batch = 1;                                  // groups of rows that share the weight
  std::int64_t width = 0, rows = 0, inner = 0;             // rows of one group
  std::int64_t weight_stride = 0, x_stride = 0, addend_stride = 0, out_stride = 0;  // between rows, in elements
  std::int64_t x_batch_stride = 0, addend_batch_stride = 0, out_batch_stride = 0;
};
static_assert(sizeof(LtShape) == 10 * 4 + 10 * 8);

enum class LtScaling : std::int32_t {
  kNone,
  kVectors,  // weight_scale[width] * x_scale[rows], sm_90
  kScalars,  // weight_scale[0] * x_scale[0]
};

struct LtOperands {
  const void* weight = nullptr;
  const void* x = nullptr;
  const void* addend = nullptr;
  void* out = nullptr;
  const void* bias = nullptr;
  const float* weight_scale = nullptr;
  const float* x_scale = nullptr;
  const float* out_quant_scale = nullptr;  // of an out of 8-bit floats
};

inline constexpr std::size_t kLtWorkspaceBytes = std::size_t{32} << 20;

/// Enqueues out = epilogue(x * weight^T); false, having done nothing, when cuBLASLt has no algorithm for the shape.
bool run_lt_product(const device::ExecutionContext& context, LtShape shape, const LtOperands& operands,
                    void* workspace);

}  // namespace octavo::ops
