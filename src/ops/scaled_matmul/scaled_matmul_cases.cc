// The products of octavo-tiny in FP8, beside matmul's cases of the same shapes.
#include "ops/op_cases.h"
#include "ops/scaled_matmul/scaled_matmul.h"

namespace octavo::ops {
namespace {

struct ProductShape {
  const char* name;
  std::int64_t width;
  std::int64_t inner;
  Activation activation = Activation::kNone;
};

constexpr ProductShape kShapes[] = {
    {"image qkv", 576, 192}, {"image up, gelu", 768, 192, Activation::kGeluTanh}, {"image down", 192, 768}};

/// Codes of normal values with scales of the grain.
QuantizedView quantized_case(CaseTensors& tensors, const Shape& shape, ScaleGrain grain) {
  const TensorView x = tensors.random(DType::kF32, shape);
  const QuantizedView view{tensors.zeros(DType::kE4M3, shape),
                           tensors.zeros(DType::kF32, scale_shape(grain, shape[0], shape[1])), grain};
  quantize_rows(x, view);
  return view;
}

}  // namespace

CaseList scaled_matmul_cases(device::Device& device) {
  std::vector<OpCase> cases;
  constexpr std::int64_t kRows = 512;
  for (const ScaleGrain grain : {ScaleGrain::kRow, ScaleGrain::kBlock128}) {
    for (const ProductShape& shape : kShapes) {
      const auto tensors = std::make_shared<CaseTensors>(device);
      ScaledMatmulArgs args;
      args.x = quantized_case(*tensors, Shape{kRows, shape.inner}, grain);
      const QuantizedView weight = quantized_case(*tensors, Shape{shape.width, shape.inner}, ScaleGrain::kRow);
      OCTAVO_ASSIGN_OR_RETURN(args.weight, pack_scaled_weight(device, weight, {}, {DType::kE4M3, grain}));
      args.epilogue.bias = tensors->random(DType::kF32, Shape{shape.width});
      args.epilogue.activation = shape.activation;
      args.out = tensors->zeros(DType::kF32, Shape{kRows, shape.width});
      const auto rows = static_cast<double>(kRows);
      const auto width = static_cast<double>(shape.width);
      const auto inner = static_cast<double>(shape.inner);
      cases.push_back(make_case(
          scaled_matmul_table(), scaled_matmul, device.traits(), tensors, args,
          fmt::format("{} {}x{}x{} e4m3, {}", shape.name, kRows, shape.width, shape.inner, scale_grain_name(grain)),
          2 * rows * width * inner, rows * inner + width * inner + 4 * rows * width));
    }
  }
  return cases;
}

}  // namespace octavo::ops
