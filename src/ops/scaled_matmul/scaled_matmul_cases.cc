// The products of octavo-tiny in FP8, on a GPU those of Large, beside matmul's cases of the same shapes.
#include <span>

#include "ops/op_cases.h"
#include "ops/scaled_matmul/scaled_matmul.h"

namespace octavo::ops {
namespace {

struct ProductShape {
  const char* name;
  std::int64_t rows;
  std::int64_t width;
  std::int64_t inner;
  Activation activation = Activation::kNone;
};
/// Scales of x and the weight, and whether the result becomes the codes of what reads it.
struct ProductScales {
  ScaleGrain x, weight;
  bool into_codes = false;
};

constexpr ProductShape kShapes[] = {{"image qkv", 512, 576, 192},
                                    {"image up, gelu", 512, 768, 192, Activation::kGeluTanh},
                                    {"image down", 512, 192, 768}};
/// Of Large; the activation is an op of its own there, which writes the next product's codes.
constexpr ProductShape kFullSize[] = {{"image qkv", 8192, 7296, 2432}, {"image out", 8192, 2432, 2432},
                                      {"image up", 8192, 9728, 2432},  {"image down", 8192, 2432, 9728},
                                      {"text qkv", 666, 7296, 2432},   {"text out", 666, 2432, 2432},
                                      {"text up", 666, 9728, 2432},    {"text down", 666, 2432, 9728}};

/// Random codes with a scale of the grain.
QuantizedView quantized_case(CaseTensors& tensors, const Shape& shape, ScaleGrain grain) {
  return {tensors.random(DType::kE4M3, shape, 100.0f),
          tensors.constant(DType::kF32, scale_shape(grain, shape[0], shape[1]), 0.01f), grain};
}

}  // namespace

CaseList scaled_matmul_cases(device::Device& device) {
  std::vector<OpCase> cases;
  const bool full = full_size(device.traits());
  for (const ProductScales& scales :
       {ProductScales{ScaleGrain::kRow, ScaleGrain::kRow}, ProductScales{ScaleGrain::kBlock128, ScaleGrain::kRow},
        ProductScales{ScaleGrain::kTensor, ScaleGrain::kTensor},
        ProductScales{ScaleGrain::kTensor, ScaleGrain::kTensor, true}}) {
    for (const ProductShape& shape : full ? std::span<const ProductShape>(kFullSize) : kShapes) {
      const ScaleGrain grain = scales.x;
      const auto tensors = std::make_shared<CaseTensors>(device);
      ScaledMatmulArgs args;
      args.x = quantized_case(*tensors, Shape{shape.rows, shape.inner}, grain);
      const QuantizedView weight = quantized_case(*tensors, Shape{shape.width, shape.inner}, scales.weight);
      ScaledActivations activations{DType::kE4M3, grain, {}};
      if (grain == ScaleGrain::kTensor) activations.static_scale = args.x.dequant_scale;
      OCTAVO_ASSIGN_OR_RETURN(args.weight, pack_scaled_weight(device, weight, {}, activations));
      args.epilogue.bias = tensors->random(full ? DType::kBF16 : DType::kF32, Shape{shape.width});
      args.epilogue.activation = scales.into_codes ? Activation::kGeluTanh : shape.activation;
      args.out = tensors->zeros(scales.into_codes ? DType::kE4M3
                                : full            ? DType::kBF16
                                                  : DType::kF32,
                                Shape{shape.rows, shape.width});
      if (scales.into_codes) args.out_quant_scale = tensors->constant(DType::kF32, Shape{1}, 10.0f);
      const auto rows = static_cast<double>(shape.rows);
      const auto width = static_cast<double>(shape.width);
      const auto inner = static_cast<double>(shape.inner);
      cases.push_back(make_case(scaled_matmul_table(), scaled_matmul, device.traits(), tensors, args,
                                fmt::format("{} {}x{}x{} e4m3, {}{}", shape.name, shape.rows, shape.width, shape.inner,
                                            scale_grain_name(grain), scales.into_codes ? ", GELU into codes" : ""),
                                2 * rows * width * inner,
                                rows * inner + width * inner + static_cast<double>(args.out.byte_count())));
    }
  }
  return cases;
}

}  // namespace octavo::ops
