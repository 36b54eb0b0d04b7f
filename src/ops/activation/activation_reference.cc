// The activations as their formulas say, in double.
#include <cmath>
#include <numbers>
#include <vector>

#include "ops/activation/activation_kernels.h"
#include "ops/rows.h"

namespace octavo::ops {

double activate_reference(Activation activation, double x) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kSilu:
      return x / (1.0 + std::exp(-x));
    case Activation::kGeluTanh:
      // 0.5 (1 + tanh u) = 1 / (1 + exp(-2u)), which does not cancel where tanh is near -1.
      return x / (1.0 + std::exp(-2.0 * std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::kGeluErf:
      return 0.5 * x * std::erfc(-x / std::numbers::sqrt2);
    case Activation::kQuickGelu:
      return x / (1.0 + std::exp(-1.702 * x));
  }
  OCTAVO_CHECK(false, "activation {}", static_cast<int>(activation));
}

void activation_reference(ExecutionContext&, const ActivationArgs& args, void*) {
  const bool batched = args.x.rank() == 3;
  const std::int64_t batch = batched ? args.x.dim(0) : 1;
  const auto row = [&](const TensorView& view, std::int64_t b, std::int64_t t) {
    return batched ? Row(view, {b, t}) : Row(view, {t});
  };
  const std::int64_t tokens = args.x.dim(-2), width = args.x.dim(-1);
  const bool coded = is_quantized(args.out.dtype());
  std::vector<BFloat16> values(coded ? static_cast<std::size_t>(width) : 0);  // of a row that becomes codes
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t t = 0; t < tokens; ++t) {
      const Row x = row(args.x, b, t);
      const Row out = coded ? Row(TensorView(values.data(), DType::kBF16, Shape{width}), {}) : row(args.out, b, t);
      for (std::int64_t i = 0; i < width; ++i) {
        double value = activate_reference(args.activation, x[i]);
        if (args.multiplier.defined()) value *= row(args.multiplier, b, t)[i];
        out.set(i, static_cast<float>(value));
      }
      if (!coded) continue;
      const std::int64_t index = b * tokens + t;
      auto* codes = static_cast<std::byte*>(args.out.data()) + index * width;
      quantize_rows(TensorView(values.data(), DType::kBF16, Shape{1, width}),
                    {TensorView(codes, args.out.dtype(), Shape{1, width}), args.out_dequant_scale.slice(0, index, 1),
                     ScaleGrain::kRow});
    }
  }
}

}  // namespace octavo::ops
