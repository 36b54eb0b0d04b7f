#include "ops/op_profile.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "ops/activation/activation.h"
#include "ops/attention/attention.h"
#include "ops/cast/cast.h"
#include "ops/conv2d/conv2d.h"
#include "ops/embedding/embedding.h"
#include "ops/group_norm/group_norm.h"
#include "ops/group_norm/group_norm_bands.h"
#include "ops/matmul/matmul.h"
#include "ops/norm/norm.h"
#include "ops/patch/patch.h"
#include "ops/quantize/quantize.h"
#include "ops/sample/sample.h"
#include "ops/scaled_matmul/scaled_matmul.h"

namespace octavo::ops {
namespace {

double bytes_of(std::initializer_list<const TensorView*> views) {
  double bytes = 0;
  for (const TensorView* view : views) {
    if (view->defined()) bytes += static_cast<double>(view->byte_count());
  }
  return bytes;
}

std::string written(const TensorView& view) {
  return view.shape().to_string() + " " + std::string(dtype_name(view.dtype()));
}

/// From one tensor to another of the same rows.
std::string rows_written(const TensorView& x, const TensorView& out) {
  return x.dtype() == out.dtype() ? written(x) : written(x) + " to " + std::string(dtype_name(out.dtype()));
}

std::string extras_of(const Epilogue& epilogue) {
  std::string words;
  if (epilogue.activation != Activation::kNone) words += ", activation";
  if (epilogue.gate.defined()) words += ", gate";
  if (epilogue.residual.defined()) words += ", residual";
  return words;
}

double bytes_of(const Epilogue& epilogue) { return bytes_of({&epilogue.bias, &epilogue.residual, &epilogue.gate}); }

OpCost product(const TensorView& x, std::int64_t N, const Epilogue& epilogue, const TensorView& out, double bytes) {
  const std::int64_t K = x.dim(-1);
  const std::int64_t M = K == 0 ? 0 : x.element_count() / K;
  return {.shape = fmt::format("{} x {} x {} {} to {}{}", M, N, K, dtype_name(x.dtype()), dtype_name(out.dtype()),
                               extras_of(epilogue)),
          .flops = 2.0 * static_cast<double>(M) * static_cast<double>(N) * static_cast<double>(K),
          .bytes = bytes + bytes_of(epilogue) + bytes_of({&x, &out}),
          .multiplied = x.dtype()};
}

OpCost cost(const MatmulArgs& a) {
  return product(a.x, a.weight.plain.dim(0), a.epilogue, a.out, bytes_of({&a.weight.plain}));
}

OpCost cost(const ScaledMatmulArgs& a) {
  return product(a.x.codes, a.weight.quantized.codes.dim(0), a.epilogue, a.out,
                 bytes_of({&a.x.dequant_scale, &a.weight.quantized.codes, &a.weight.quantized.dequant_scale,
                           &a.weight.outlier_weight, &a.outliers}));
}

OpCost cost(const AttentionArgs& a) {
  const auto pairs = static_cast<double>(a.q.dim(0) * a.q.dim(1) * a.q.dim(2)) * static_cast<double>(a.k.dim(2));
  return {.shape = fmt::format("B{} H{} {} x {} of {} {}{}{}{}", a.q.dim(0), a.q.dim(1), a.q.dim(2), a.k.dim(2),
                               a.q.dim(3), dtype_name(a.q.dtype()), a.out_quant_scale.defined() ? " to codes" : "",
                               a.bias.defined() ? ", bias" : "", a.causal ? ", causal" : ""),
          .flops = 4 * pairs * static_cast<double>(a.q.dim(3)) * (a.causal ? 0.5 : 1.0),
          .bytes = bytes_of({&a.q, &a.k, &a.v, &a.bias, &a.out}),
          .multiplied = a.q.dtype()};
}

OpCost cost(const Conv2dArgs& a) {
  const TensorView& w = a.weight.plain;
  return {
      .shape = fmt::format("{} -> {}, {}x{}{}{} {}", a.x.shape().to_string(), w.dim(0), w.dim(2), w.dim(3),
                           a.upsample ? " upsampled" : "", a.residual.defined() ? ", residual" : "",
                           dtype_name(a.x.dtype())),
      .flops = 2.0 * static_cast<double>(a.out.element_count()) * static_cast<double>(w.dim(1) * w.dim(2) * w.dim(3)),
      .bytes = bytes_of({&a.x, &w, &a.bias, &a.residual, &a.out}),
      .multiplied = a.x.dtype()};
}

OpCost cost(const GroupNormArgs& a) {
  return {.shape = rows_written(a.x, a.out) + (a.silu ? " silu" : ""), .bytes = bytes_of({&a.x, &a.out})};
}
OpCost cost(const GroupNormMeasureArgs& a) { return {.shape = written(a.x), .bytes = bytes_of({&a.x})}; }
OpCost cost(const GroupNormJoinArgs& a) { return {.shape = written(a.statistics), .bytes = bytes_of({&a.statistics})}; }
OpCost cost(const GroupNormApplyArgs& a) { return {.shape = written(a.x), .bytes = bytes_of({&a.x, &a.out})}; }

OpCost cost(const LayerNormArgs& a) {
  return {.shape = rows_written(a.x, a.out) + (a.second.defined() ? " twice" : ""),
          .bytes = bytes_of({&a.x, &a.out, &a.out_dequant_scale, &a.second.out, &a.second.dequant_scale})};
}

OpCost cost(const GateResidualNormArgs& a) {
  const std::string to = a.out.defined() ? " to " + std::string(dtype_name(a.out.dtype())) : "";
  return {.shape = written(a.x) + to + (a.second.defined() ? " twice" : ""),
          .bytes = bytes_of({&a.x, &a.x, &a.y, &a.out, &a.out_dequant_scale, &a.second.out, &a.second.dequant_scale})};
}

OpCost cost(const RmsNormArgs& a) { return {.shape = rows_written(a.x, a.out), .bytes = bytes_of({&a.x, &a.out})}; }
OpCost cost(const QkvSplitNormArgs& a) {
  return {.shape = rows_written(a.qkv, a.k), .bytes = bytes_of({&a.qkv, &a.q, &a.k, &a.v})};
}
OpCost cost(const ActivationArgs& a) {
  return {.shape = rows_written(a.x, a.out), .bytes = bytes_of({&a.x, &a.multiplier, &a.out, &a.out_dequant_scale})};
}
OpCost cost(const QuantizeArgs& a) {
  return {.shape = rows_written(a.x, a.out.codes),
          .bytes = bytes_of({&a.x, &a.out.codes, &a.out.dequant_scale, &a.outlier_values})};
}
OpCost cost(const CastArgs& a) { return {.shape = rows_written(a.x, a.out), .bytes = bytes_of({&a.x, &a.out})}; }
OpCost cost(const PatchifyArgs& a) { return {.shape = written(a.out), .bytes = bytes_of({&a.latents, &a.out})}; }
OpCost cost(const UnpatchifyArgs& a) { return {.shape = written(a.tokens), .bytes = bytes_of({&a.tokens, &a.out})}; }
OpCost cost(const AddPositionsArgs& a) {
  const double table = static_cast<double>(a.rows) * a.columns * static_cast<double>(a.x.dim(-1)) *
                       static_cast<double>(dtype_size(a.table.dtype()));
  return {.shape = written(a.x), .bytes = bytes_of({&a.x, &a.x}) + table};
}
OpCost cost(const EmbeddingArgs& a) { return {.shape = written(a.out), .bytes = 2 * bytes_of({&a.out})}; }
OpCost cost(const TimestepEmbeddingArgs& a) { return {.shape = written(a.out), .bytes = bytes_of({&a.out})}; }
OpCost cost(const RelativeBiasArgs& a) { return {.shape = written(a.out), .bytes = bytes_of({&a.out})}; }
OpCost cost(const LincombArgs& a) {
  return {.shape = fmt::format("{} of {} terms", a.out.shape().to_string(), a.term_count),
          .bytes = bytes_of({&a.out}) * (a.term_count + 1)};
}
OpCost cost(const GuidanceArgs& a) { return {.shape = written(a.out), .bytes = 3 * bytes_of({&a.out})}; }
OpCost cost(const BlendKnownArgs& a) { return {.shape = written(a.latents), .bytes = 4 * bytes_of({&a.latents})}; }
OpCost cost(const LatentsToDecoderArgs& a) {
  return {.shape = rows_written(a.latents, a.out), .bytes = bytes_of({&a.latents, &a.out})};
}
OpCost cost(const ToPixelsArgs& a) { return {.shape = written(a.x), .bytes = bytes_of({&a.x, &a.out})}; }
OpCost cost(const CheckFiniteArgs& a) { return {.shape = written(a.x), .bytes = bytes_of({&a.x})}; }

template <typename... Args>
OpCost first_of(const device::AnyArgs& args) {
  OpCost found{.shape = "?"};
  const auto look = [&]<typename One>(const One* one) {
    if (one != nullptr) found = cost(*one);
    return one != nullptr;
  };
  (look(args.as<Args>()) || ...);
  return found;
}

}  // namespace

OpCost cost_of(const device::AnyArgs& args) {
  return first_of<ScaledMatmulArgs, MatmulArgs, AttentionArgs, GateResidualNormArgs, LayerNormArgs, QkvSplitNormArgs,
                  ActivationArgs, QuantizeArgs, CastArgs, RmsNormArgs, Conv2dArgs, GroupNormArgs, GroupNormMeasureArgs,
                  GroupNormJoinArgs, GroupNormApplyArgs, PatchifyArgs, UnpatchifyArgs, AddPositionsArgs, EmbeddingArgs,
                  TimestepEmbeddingArgs, RelativeBiasArgs, LincombArgs, GuidanceArgs, BlendKnownArgs,
                  LatentsToDecoderArgs, ToPixelsArgs, CheckFiniteArgs>(args);
}

double Roofline::floor_seconds(const OpCost& cost) const {
  if (bytes_per_second <= 0) return 0;
  const double rate = dtype_size(cost.multiplied) == 1 ? fp8_flops_per_second : bf16_flops_per_second;
  return std::max(cost.bytes / bytes_per_second, cost.flops / rate);
}

Roofline roofline_of(const DeviceTraits& traits) {
  if (traits.kind != DeviceKind::kCuda) return {};
  Roofline hopper{.bytes_per_second = 3.0e12, .bf16_flops_per_second = 989e12, .fp8_flops_per_second = 1979e12};
  if (traits.name.find("H100") != std::string::npos) return hopper;
  if (traits.name.find("H200") == std::string::npos) return {};
  hopper.bytes_per_second = 4.3e12;
  return hopper;
}

void OpProfile::before_op(ExecutionContext& context, std::string_view op, std::string_view row,
                          const device::AnyArgs& args) {
  if (depth_++ > 0) return;
  calls_.push_back({.op = op, .row = row, .cost = cost_of(args), .begin = nullptr, .end = nullptr});
  calls_.back().begin = context.stream().record_event();
}

void OpProfile::after_op(ExecutionContext& context) {
  if (--depth_ > 0) return;
  calls_.back().end = context.stream().record_event();
}

std::vector<OpProfileRow> OpProfile::rows() const {
  std::map<std::tuple<std::string_view, std::string_view, std::string_view>, OpProfileRow> found;
  for (const Call& call : calls_) {
    OpProfileRow& row = found[{call.op, call.row, call.cost.shape}];
    if (row.calls == 0) {
      row.op = call.op;
      row.row = call.row;
      row.cost = call.cost;
    }
    ++row.calls;
    row.seconds += call.end->seconds_since(*call.begin);
  }
  std::vector<OpProfileRow> sorted;
  sorted.reserve(found.size());
  for (auto& [key, row] : found) sorted.push_back(std::move(row));
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
  return sorted;
}

double OpProfile::span_seconds() const {
  return calls_.empty() ? 0 : calls_.back().end->seconds_since(*calls_.front().begin);
}

}  // namespace octavo::ops
