#include "ops/norm/norm.h"
#include "ops/op_cases.h"

namespace octavo::ops {
namespace {

// octavo-tiny: image tokens of two rows (guidance), 3 heads of 64; T5's rows.
constexpr std::int64_t kBatch = 2;
constexpr std::int64_t kTokens = 256;
constexpr std::int64_t kHeads = 3;
constexpr std::int64_t kHeadWidth = 64;
constexpr std::int64_t kWidth = kHeads * kHeadWidth;
constexpr double kElements = static_cast<double>(kBatch * kTokens * kWidth);

/// Large at 1024x1024, as a GPU computes it: streams in bf16, norms that write bf16 or a product's codes.
CaseList full_size_cases(device::Device& device) {
  std::vector<OpCase> cases;
  const DeviceTraits& traits = device.traits();
  constexpr std::int64_t kLargeHeads = 38, kLargeWidth = kLargeHeads * kHeadWidth;
  for (const std::int64_t tokens : {4096, 333}) {
    const auto tensors = std::make_shared<CaseTensors>(device);
    const Shape shape{kBatch, tokens, kLargeWidth}, heads{kBatch, kLargeHeads, tokens, kHeadWidth};
    const auto elements = static_cast<double>(shape.element_count());
    const TensorView x = tensors->random(DType::kBF16, shape), y = tensors->random(DType::kBF16, shape);
    const TensorView row = tensors->random(DType::kF32, {kBatch, kLargeWidth});
    const TensorView gate = tensors->zeros(DType::kF32, {kBatch, kLargeWidth});  // x stays as it is
    const TensorView head_vector = tensors->random(DType::kF32, {kHeadWidth});
    const TensorView scale = tensors->zeros(DType::kF32, {kBatch * tokens});
    for (const DType dtype : {DType::kBF16, DType::kE4M3}) {
      const TensorView out = tensors->zeros(dtype, shape);
      const TensorView dequant = dtype == DType::kE4M3 ? scale : TensorView();
      const std::string name = fmt::format("2x{}x2432 bf16 to {}", tokens, dtype_name(dtype));
      const auto size = static_cast<double>(dtype_size(dtype));
      cases.push_back(make_case(layer_norm_table(), layer_norm, traits, tensors,
                                {.x = x, .shift = row, .scale = row, .out = out, .out_dequant_scale = dequant}, name,
                                9 * elements, (2 + size) * elements));
      cases.push_back(make_case(
          gate_residual_norm_table(), gate_residual_norm, traits, tensors,
          {.x = x, .y = y, .gate = gate, .shift = row, .scale = row, .out = out, .out_dequant_scale = dequant}, name,
          11 * elements, (6 + size) * elements));
    }
    cases.push_back(make_case(qkv_split_norm_table(), qkv_split_norm, traits, tensors,
                              {.qkv = tensors->random(DType::kBF16, {kBatch, tokens, 3 * kLargeWidth}),
                               .q_weight = head_vector,
                               .k_weight = head_vector,
                               .q = tensors->zeros(DType::kBF16, heads),
                               .k = tensors->zeros(DType::kBF16, heads),
                               .v = tensors->zeros(DType::kBF16, heads)},
                              fmt::format("2x{}x38x64 bf16", tokens), 8 * elements, 12 * elements));
  }
  return cases;
}

}  // namespace

CaseList norm_cases(device::Device& device) {
  if (full_size(device.traits())) return full_size_cases(device);
  std::vector<OpCase> cases;
  const DeviceTraits& traits = device.traits();
  const auto tensors = std::make_shared<CaseTensors>(device);
  const Shape tokens{kBatch, kTokens, kWidth};
  const TensorView x = tensors->random(DType::kF32, tokens);
  const TensorView row = tensors->random(DType::kF32, {kBatch, kWidth});
  const TensorView vector = tensors->random(DType::kF32, {kWidth});
  const TensorView head_vector = tensors->random(DType::kF32, {kHeadWidth});
  for (const DType dtype : case_dtypes(traits)) {
    const std::string suffix = " " + std::string(dtype_name(dtype));
    const std::string shape = "2x256x192" + suffix;
    const double size = static_cast<double>(dtype_size(dtype));
    const TensorView out = tensors->zeros(dtype, tokens);
    // Operations an element: mean 1, variance 3, normalise 2, modulate 3.
    cases.push_back(make_case(layer_norm_table(), layer_norm, traits, tensors,
                              {.x = x, .shift = row, .scale = row, .out = out}, shape, 9 * kElements,
                              (4 + size) * kElements));
    // A gate of zeros leaves x as it is, however often the case runs.
    const TensorView y = tensors->random(dtype, tokens);
    const TensorView gate = tensors->zeros(DType::kF32, {kBatch, kWidth});
    cases.push_back(make_case(gate_residual_norm_table(), gate_residual_norm, traits, tensors,
                              {.x = x, .y = y, .gate = gate, .shift = row, .scale = row, .out = out}, shape,
                              11 * kElements, (8 + 2 * size) * kElements));
    // The seam into a dual attention block.
    const TensorView second_out = tensors->zeros(dtype, tokens);
    cases.push_back(make_case(gate_residual_norm_table(), gate_residual_norm, traits, tensors,
                              {.x = x,
                               .y = y,
                               .gate = gate,
                               .shift = row,
                               .scale = row,
                               .out = out,
                               .second = {.shift = row, .scale = row, .out = second_out}},
                              shape + " twice", 14 * kElements, (8 + 3 * size) * kElements));
    cases.push_back(make_case(rms_norm_table(), rms_norm, traits, tensors, {.x = x, .weight = vector, .out = out},
                              shape, 4 * kElements, (4 + size) * kElements));
    const TensorView qkv = tensors->random(dtype, {kBatch, kTokens, 3 * kWidth});
    const Shape heads{kBatch, kHeads, kTokens, kHeadWidth};
    cases.push_back(make_case(qkv_split_norm_table(), qkv_split_norm, traits, tensors,
                              {.qkv = qkv,
                               .q_weight = head_vector,
                               .k_weight = head_vector,
                               .q = tensors->zeros(dtype, heads),
                               .k = tensors->zeros(dtype, heads),
                               .v = tensors->zeros(dtype, heads)},
                              "2x256x3x64" + suffix, 8 * kElements, 6 * size * kElements));
  }
  return cases;
}

}  // namespace octavo::ops
