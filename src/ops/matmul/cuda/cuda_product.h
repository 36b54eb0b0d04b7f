// The products of matmul and scaled_matmul on the GPU through cuBLASLt: one plan for all forms.
//
// Factors. bf16 x bf16, f32 x f32, 8-bit floats and i8 go to cuBLASLt as they lie (8-bit floats from sm_89 on). What it
//   does not take, or not with these strides, is converted into scratch first: codes become bf16, which holds them
//   exactly; f32 x beside a narrower weight is split into a rounded part and what rounding left over (f16 for codes and
//   f16 weights, with a power of two per row so that f16 holds it: 22 bits; bf16 for bf16 weights: 16 bits), two rows
//   of one product that are added up afterwards. Where a scale belongs to a block of K, codes are multiplied by it and
//   then split in the same way, both x and weight.
// Epilogue. Where cuBLASLt has it (bias, tanh GELU, a residual to add, scales of rows and columns on sm_90; codes with
//   one scale, where x and the weight have one scale each), it writes `out` itself. Else sums go to f32 scratch, in
//   chunks of rows that bound it, and finish_rows() makes `out` of them.
// Scales of channels are always applied to sums in f32, never to weights.
#pragma once

#include "device/cuda/cuda_device.h"
#include "ops/scaled_matmul/scaled_matmul.h"

namespace octavo::ops {

/// The arguments of either op.
struct CudaProduct {
  QuantizedView x;       // plain x has no scale
  QuantizedView weight;  // a plain weight neither
  /// [N]: weight's scales times the one scale of x, and [kMostOnes] ones; null unless x has that one scale.
  const float* joint_scale = nullptr;
  const float* ones = nullptr;
  bool one_weight_scale = false;  // all scales of the weight are equal
  /// Codes of 8-bit floats become bf16, which holds them, also where the GPU multiplies them as they are: sums are then
  /// as good as f32's, where the tensor cores keep some 14 bits of those of 8-bit floats.
  bool widens_codes = false;
  TensorView outliers, outlier_weight;
  Epilogue epilogue;
  TensorView out;
  const float* out_quant_scale = nullptr;  // out holds e4m3 codes of values times this
};
inline constexpr std::int64_t kMostOnes = 1 << 16;

/// By arguments and architecture alone.
std::size_t cuda_product_scratch_bytes(const CudaProduct& product, int architecture);
void run_cuda_product(device::ExecutionContext& context, const CudaProduct& product, void* scratch);

/// The product of few rows (few_rows.cu): f32 x with 8-bit weights that have scales of rows, or 16-bit ones.
bool few_rows_supports(const CudaProduct& product, int architecture);
std::size_t few_rows_scratch_bytes(const CudaProduct& product);
void run_few_rows(device::ExecutionContext& context, const CudaProduct& product, void* scratch);

/// Memory of the GPU behind packed weights.
class CudaWeight final : public PackedWeight {
 public:
  std::size_t byte_count() const override {
    return elements.byte_count() + scales.byte_count() + joint_scales.byte_count() + outliers.byte_count();
  }
  device::Buffer elements;      // [N, K]
  device::Buffer scales;        // f32, [N] or [N, K / 128]
  device::Buffer joint_scales;  // CudaProduct::joint_scale
  device::Buffer outliers;      // bf16 [N, k]
  const void* joint_for = nullptr;
  std::shared_ptr<const device::Buffer> ones;
};

/// A copy on the GPU of `from`, host or device memory, as `dtype`.
Result<device::Buffer> copy_to_gpu(device::Device& device, device::Stream& stream, const TensorView& from, DType dtype);

}  // namespace octavo::ops
