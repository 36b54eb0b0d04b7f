// The norms, a row at a time: a row fits the first-level cache, so statistics and output read memory once.
#include <cmath>

#include "ops/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/norm/norm_vector.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include "ops/norm/norm_kernels.h"
#include "ops/rows.h"
#include "ops/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace octavo::ops::HWY_NAMESPACE {

/// Biased variance around the mean, in a second pass: no cancellation.
float inverse_deviation(const float* x, std::int64_t width, float mean, float eps) {
  const float squares = sum_terms(width, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto centred = hn::Sub(load(d, x + i), hn::Set(d, mean));
    return hn::Mul(centred, centred);
  });
  return 1.0f / std::sqrt(squares / static_cast<float>(width) + eps);
}

float mean_of(const float* x, std::int64_t width) {
  const float sum = sum_terms(width, [&](auto d, std::int64_t i) HWY_ATTR { return load(d, x + i); });
  return sum / static_cast<float>(width);
}

/// out = (x - mean) * factor * (1 + scale) + shift, for token t of row b.
void write_modulated(const float* x, std::int64_t width, float mean, float factor, const TensorView& scale_rows,
                     const TensorView& shift_rows, const TensorView& out, std::int64_t b, std::int64_t t) {
  const auto* scale = static_cast<const float*>(Row::address(scale_rows, {b}));
  const auto* shift = static_cast<const float*>(Row::address(shift_rows, {b}));
  with_f32_or_bf16(out.dtype(), Row::address(out, {b, t}), [&](auto* to) HWY_ATTR {
    for_each_vector(width, [&](auto d, std::int64_t i) HWY_ATTR {
      const auto normal = hn::Mul(hn::Sub(load(d, x + i), hn::Set(d, mean)), hn::Set(d, factor));
      const auto scale_plus_one = hn::Add(load(d, scale + i), hn::Set(d, 1.0f));
      store(d, hn::MulAdd(normal, scale_plus_one, load(d, shift + i)), to + i);
    });
  });
}

/// Both modulated outputs of a row that is in the first-level cache by now.
template <class Args>
void write_both(const Args& args, const float* x, float mean, float factor, std::int64_t b, std::int64_t t) {
  const std::int64_t width = args.x.dim(2);
  write_modulated(x, width, mean, factor, args.scale, args.shift, args.out, b, t);
  if (args.second.defined()) {
    write_modulated(x, width, mean, factor, args.second.scale, args.second.shift, args.second.out, b, t);
  }
}

void layer_norm_rows(const LayerNormArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t width = args.x.dim(2);
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t b = row / args.x.dim(1);
    const std::int64_t t = row % args.x.dim(1);
    const auto* x = static_cast<const float*>(Row::address(args.x, {b, t}));
    const float mean = mean_of(x, width);
    const float factor = inverse_deviation(x, width, mean, args.eps);
    if (args.scale.defined()) {
      write_both(args, x, mean, factor, b, t);
      continue;
    }
    with_f32_or_bf16(args.out.dtype(), Row::address(args.out, {b, t}), [&](auto* to) HWY_ATTR {
      const float* weight = args.weight.defined() ? args.weight.f32() : nullptr;
      const float* bias = args.bias.defined() ? args.bias.f32() : nullptr;
      for_each_vector(width, [&](auto d, std::int64_t i) HWY_ATTR {
        auto value = hn::Mul(hn::Sub(load(d, x + i), hn::Set(d, mean)), hn::Set(d, factor));
        if (weight != nullptr) value = hn::MulAdd(value, load(d, weight + i), load(d, bias + i));
        store(d, value, to + i);
      });
    });
  }
}

void gate_residual_norm_rows(const GateResidualNormArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t width = args.x.dim(2);
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t b = row / args.x.dim(1);
    const std::int64_t t = row % args.x.dim(1);
    auto* x = static_cast<float*>(Row::address(args.x, {b, t}));
    const auto* gate = static_cast<const float*>(Row::address(args.gate, {b}));
    with_f32_or_bf16(args.y.dtype(), Row::address(args.y, {b, t}), [&](const auto* y) HWY_ATTR {
      for_each_vector(width, [&](auto d, std::int64_t i) HWY_ATTR {
        store(d, hn::MulAdd(load(d, gate + i), load(d, y + i), load(d, x + i)), x + i);
      });
    });
    if (!args.out.defined()) continue;
    const float mean = mean_of(x, width);
    write_both(args, x, mean, inverse_deviation(x, width, mean, args.eps), b, t);
  }
}

template <typename T>
float inverse_root_mean_square(const T* x, std::int64_t width, float eps) {
  const float squares = sum_terms(width, [&](auto d, std::int64_t i) HWY_ATTR {
    const auto value = load(d, x + i);
    return hn::Mul(value, value);
  });
  return 1.0f / std::sqrt(squares / static_cast<float>(width) + eps);
}

void rms_norm_rows(const RmsNormArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t width = args.x.dim(2);
  const float* weight = args.weight.f32();
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t b = row / args.x.dim(1);
    const std::int64_t t = row % args.x.dim(1);
    const auto* x = static_cast<const float*>(Row::address(args.x, {b, t}));
    const float factor = inverse_root_mean_square(x, width, args.eps);
    with_f32_or_bf16(args.out.dtype(), Row::address(args.out, {b, t}), [&](auto* to) HWY_ATTR {
      for_each_vector(width, [&](auto d, std::int64_t i) HWY_ATTR {
        store(d, hn::Mul(hn::Mul(load(d, x + i), hn::Set(d, factor)), load(d, weight + i)), to + i);
      });
    });
  }
}

/// One of q, k, v of one token: its heads lie side by side at `from` and go to rows of `part`.
template <typename T>
void split_heads(const T* from, const TensorView& part, const TensorView& weight, float eps, std::int64_t b,
                 std::int64_t t) {
  const std::int64_t width = part.dim(3);
  for (std::int64_t h = 0; h < part.dim(1); ++h, from += width) {
    with_f32_or_bf16(part.dtype(), Row::address(part, {b, h, t}), [&](auto* to) HWY_ATTR {
      if (!weight.defined()) {
        for_each_vector(width, [&](auto d, std::int64_t i) HWY_ATTR { store(d, load(d, from + i), to + i); });
        return;
      }
      const float* w = weight.f32();
      const float factor = inverse_root_mean_square(from, width, eps);
      for_each_vector(width, [&](auto d, std::int64_t i) HWY_ATTR {
        store(d, hn::Mul(hn::Mul(load(d, from + i), hn::Set(d, factor)), load(d, w + i)), to + i);
      });
    });
  }
}

void qkv_split_norm_rows(const QkvSplitNormArgs& args, std::int64_t begin, std::int64_t end) {
  const std::int64_t tokens = args.qkv.dim(1);
  const std::int64_t part_width = args.k.dim(1) * args.k.dim(3);
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t b = row / tokens;
    const std::int64_t t = row % tokens;
    with_f32_or_bf16(args.qkv.dtype(), Row::address(args.qkv, {b, t}), [&](const auto* from) HWY_ATTR {
      if (args.q.defined()) {
        split_heads(from, args.q, args.q_weight, args.eps, b, t);
        from += part_width;
      }
      split_heads(from, args.k, args.k_weight, args.eps, b, t);
      split_heads(from + part_width, args.v, TensorView(), args.eps, b, t);
    });
  }
}

}  // namespace octavo::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace octavo::ops {

HWY_EXPORT(layer_norm_rows);
HWY_EXPORT(gate_residual_norm_rows);
HWY_EXPORT(rms_norm_rows);
HWY_EXPORT(qkv_split_norm_rows);

void layer_norm_rows(const LayerNormArgs& args, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(layer_norm_rows)(args, begin, end);
}
void gate_residual_norm_rows(const GateResidualNormArgs& args, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(gate_residual_norm_rows)(args, begin, end);
}
void rms_norm_rows(const RmsNormArgs& args, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(rms_norm_rows)(args, begin, end);
}
void qkv_split_norm_rows(const QkvSplitNormArgs& args, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(qkv_split_norm_rows)(args, begin, end);
}

}  // namespace octavo::ops
#endif  // HWY_ONCE
