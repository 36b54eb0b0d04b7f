// The norms as their formulas say, sums in double: what every other row is compared with.
#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "ops/norm/norm_kernels.h"
#include "ops/rows.h"

namespace octavo::ops {
namespace {

struct Statistics {
  double mean = 0.0;
  double inverse_deviation = 0.0;
};

Statistics row_statistics(const Row& x, std::int64_t width, float eps) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < width; ++i) sum += x[i];
  const double mean = sum / static_cast<double>(width);
  double squares = 0.0;
  for (std::int64_t i = 0; i < width; ++i) squares += (x[i] - mean) * (x[i] - mean);
  return {mean, 1.0 / std::sqrt(squares / static_cast<double>(width) + eps)};
}

double inverse_root_mean_square(const Row& x, std::int64_t begin, std::int64_t width, float eps) {
  double squares = 0.0;
  for (std::int64_t i = 0; i < width; ++i) squares += static_cast<double>(x[begin + i]) * x[begin + i];
  return 1.0 / std::sqrt(squares / static_cast<double>(width) + eps);
}

/// Where a norm's values of one token go.
class OutRow {
 public:
  OutRow(const TensorView& out, const TensorView& scales, const TensorView& quant_scale, std::int64_t b, std::int64_t t)
      : out_(out),
        scales_(scales),
        index_(b * out.dim(1) + t),
        row_(out, {b, t}),
        values_(scales.defined() ? static_cast<std::size_t>(out.dim(2)) : 0),
        quant_scale_(quant_scale.defined() ? std::optional(*quant_scale.f32()) : std::nullopt) {}
  void set(std::int64_t i, float value) {
    if (quant_scale_) {
      row_.set(i, to_float(to_bfloat16(value)) * *quant_scale_);
    } else if (values_.empty()) {
      row_.set(i, value);
    } else {
      values_[static_cast<std::size_t>(i)] = to_bfloat16(value);
    }
  }
  /// When all are set: codes with a scale of their row need its largest value.
  void finish() {
    if (values_.empty()) return;
    const std::int64_t width = out_.dim(2);
    auto* codes = static_cast<std::byte*>(out_.data()) + index_ * width;
    quantize_rows(TensorView(values_.data(), DType::kBF16, Shape{1, width}),
                  {TensorView(codes, out_.dtype(), Shape{1, width}), scales_.slice(0, index_, 1), ScaleGrain::kRow});
  }

 private:
  const TensorView& out_;
  const TensorView& scales_;
  std::int64_t index_;
  Row row_;
  std::vector<BFloat16> values_;  // of a row that is measured
  std::optional<float> quant_scale_;
};

/// f16 has no infinity here: an element of v beyond its range would make every output of its head NaN.
float saturated(float value, DType dtype) {
  constexpr float kLargestF16 = 65504.0f;
  return dtype == DType::kF16 ? std::clamp(value, -kLargestF16, kLargestF16) : value;
}

}  // namespace

void layer_norm_reference(ExecutionContext&, const LayerNormArgs& args, void*) {
  const std::int64_t width = args.x.dim(2);
  for (std::int64_t b = 0; b < args.x.dim(0); ++b) {
    for (std::int64_t t = 0; t < args.x.dim(1); ++t) {
      const Row x(args.x, {b, t});
      OutRow out(args.out, args.out_dequant_scale, args.out_quant_scale, b, t);
      std::optional<OutRow> second;
      if (args.second.defined()) {
        second.emplace(args.second.out, args.second.dequant_scale, args.second.quant_scale, b, t);
      }
      const Statistics statistics = row_statistics(x, width, args.eps);
      for (std::int64_t i = 0; i < width; ++i) {
        const double normal = (x[i] - statistics.mean) * statistics.inverse_deviation;
        double value = normal;
        if (args.weight.defined()) value = value * Row(args.weight, {})[i] + Row(args.bias, {})[i];
        if (args.scale.defined()) value = value * (1.0 + Row(args.scale, {b})[i]) + Row(args.shift, {b})[i];
        out.set(i, static_cast<float>(value));
        if (!second) continue;
        value = normal * (1.0 + Row(args.second.scale, {b})[i]) + Row(args.second.shift, {b})[i];
        second->set(i, static_cast<float>(value));
      }
      out.finish();
      if (second) second->finish();
    }
  }
}

void gate_residual_norm_reference(ExecutionContext& context, const GateResidualNormArgs& args, void* scratch) {
  for (std::int64_t b = 0; b < args.x.dim(0); ++b) {
    const Row gate(args.gate, {b});
    for (std::int64_t t = 0; t < args.x.dim(1); ++t) {
      const Row x(args.x, {b, t});
      const Row y(args.y, {b, t});
      for (std::int64_t i = 0; i < args.x.dim(2); ++i) x.set(i, x[i] + gate[i] * y[i]);
    }
  }
  if (!args.out.defined()) return;
  LayerNormArgs norm;
  norm.x = args.x;
  norm.shift = args.shift;
  norm.scale = args.scale;
  norm.eps = args.eps;
  norm.out = args.out;
  norm.out_dequant_scale = args.out_dequant_scale;
  norm.out_quant_scale = args.out_quant_scale;
  norm.second = args.second;
  layer_norm_reference(context, norm, scratch);
}

void rms_norm_reference(ExecutionContext&, const RmsNormArgs& args, void*) {
  const std::int64_t width = args.x.dim(2);
  const Row weight(args.weight, {});
  for (std::int64_t b = 0; b < args.x.dim(0); ++b) {
    for (std::int64_t t = 0; t < args.x.dim(1); ++t) {
      const Row x(args.x, {b, t});
      const Row out(args.out, {b, t});
      const double factor = inverse_root_mean_square(x, 0, width, args.eps);
      for (std::int64_t i = 0; i < width; ++i) out.set(i, static_cast<float>(x[i] * factor * weight[i]));
    }
  }
}

void qkv_split_norm_reference(ExecutionContext&, const QkvSplitNormArgs& args, void*) {
  const std::int64_t heads = args.k.dim(1);
  const std::int64_t head_width = args.k.dim(3);
  for (std::int64_t b = 0; b < args.qkv.dim(0); ++b) {
    for (std::int64_t t = 0; t < args.qkv.dim(1); ++t) {
      const Row qkv(args.qkv, {b, t});
      std::int64_t begin = 0;  // column of qkv
      const auto split = [&](const TensorView& part, const TensorView& weight, double written_factor) {
        for (std::int64_t h = 0; h < heads; ++h, begin += head_width) {
          const Row out(part, {b, h, t});
          const double factor = weight.defined() ? inverse_root_mean_square(qkv, begin, head_width, args.eps) : 1.0;
          for (std::int64_t i = 0; i < head_width; ++i) {
            const double value =
                qkv[begin + i] * factor * (weight.defined() ? Row(weight, {})[i] : 1.0f) * written_factor;
            out.set(i, saturated(static_cast<float>(value), part.dtype()));
          }
        }
      };
      if (args.q.defined()) split(args.q, args.q_weight, args.q_factor);
      split(args.k, args.k_weight, args.k_factor);
      split(args.v, TensorView(), 1.0);
    }
  }
}

}  // namespace octavo::ops
