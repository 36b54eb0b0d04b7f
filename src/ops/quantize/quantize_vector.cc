// quantize with vectors.
//
// Mapping: a row belongs to one thread, which reads it twice: for the largest magnitude, and, out of the first-level
//   cache, for the codes. Nothing is stored in between, so there is no scratch.
// Bytes: M K elements of x in, M K codes out, 4 a scale. Magnitudes are compared as integers: their order is that of
//   the numbers with infinity and NaN on top, whatever the instruction set's max makes of NaN.
#include "ops/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/quantize/quantize_vector.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include <bit>

#include "ops/quantize/quantize_kernels.h"
#include "ops/rows.h"
#include "ops/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace octavo::ops::HWY_NAMESPACE {

/// x * multiplier at i.
template <class D, typename T>
HWY_INLINE hn::Vec<D> load_scaled(D d, const T* x, const float* multiplier, std::int64_t i) {
  const auto value = load(d, x + i);
  return multiplier == nullptr ? value : hn::Mul(value, hn::LoadU(d, multiplier + i));
}

/// The bits of the largest magnitude of elements [begin, end).
template <typename T>
HWY_INLINE std::int32_t largest_in_run(const T* x, const float* multiplier, std::int64_t begin, std::int64_t end) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto largest0 = hn::Zero(di);
  auto largest1 = hn::Zero(di);
  std::int64_t i = begin;
  for (; i + 2 * lanes <= end; i += 2 * lanes) {
    largest0 = hn::Max(largest0, hn::BitCast(di, hn::Abs(load_scaled(d, x, multiplier, i))));
    largest1 = hn::Max(largest1, hn::BitCast(di, hn::Abs(load_scaled(d, x, multiplier, i + lanes))));
  }
  std::int32_t largest = hn::GetLane(hn::MaxOfLanes(di, hn::Max(largest0, largest1)));
  const hn::CappedTag<float, 1> one;
  const hn::RebindToSigned<decltype(one)> one_bits;
  for (; i < end; ++i) {
    const std::int32_t bits = hn::GetLane(hn::BitCast(one_bits, hn::Abs(load_scaled(one, x, multiplier, i))));
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

/// The same without the columns of `outliers`, of which `next` is the first at or after `begin` (and moves on).
template <typename T>
HWY_INLINE float largest_magnitude_of(const QuantizeArgs& args, const T* x, std::int64_t begin, std::int64_t end,
                                      std::int64_t& next) {
  const float* multiplier = args.multiplier.defined() ? args.multiplier.f32() : nullptr;
  std::int32_t largest = 0;
  if (args.outliers.defined()) {
    const auto* columns = args.outliers.as<std::int32_t>();
    for (; next < args.outliers.dim(0) && columns[next] < end; ++next) {
      const std::int32_t found = largest_in_run(x, multiplier, begin, columns[next]);
      largest = found > largest ? found : largest;
      begin = columns[next] + 1;
    }
  }
  const std::int32_t found = largest_in_run(x, multiplier, begin, end);
  return std::bit_cast<float>(found > largest ? found : largest);
}

/// float8::encode of tensor/float8.h, lane by lane.
template <int kMantissaBits, int kBias, std::uint32_t kLargestCode, class D>
HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> encode_float8(D d, hn::Vec<D> value) {
  constexpr int kDropped = 23 - kMantissaBits;
  constexpr std::uint32_t kRebias = static_cast<std::uint32_t>(127 - kBias) << kMantissaBits;
  constexpr std::uint32_t kFirstNormal = static_cast<std::uint32_t>(128 - kBias) << 23;
  constexpr std::uint32_t kLargest = (kLargestCode + kRebias) << kDropped;
  constexpr std::uint32_t kAligner = kFirstNormal + (static_cast<std::uint32_t>(kDropped) << 23);
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, value);
  const auto magnitude = hn::And(bits, hn::Set(du, 0x7FFFFFFFu));
  const auto sign = hn::And(hn::ShiftRight<24>(bits), hn::Set(du, 0x80u));
  const auto clamped = hn::Min(magnitude, hn::Set(du, kLargest));
  const auto odd = hn::And(hn::ShiftRight<kDropped>(clamped), hn::Set(du, 1u));
  const auto rounded = hn::Add(hn::Add(clamped, hn::Set(du, (1u << (kDropped - 1)) - 1u)), odd);
  const auto normal = hn::Sub(hn::ShiftRight<kDropped>(rounded), hn::Set(du, kRebias));
  const auto aligner = hn::Set(du, kAligner);
  const auto aligned = hn::Add(hn::BitCast(d, clamped), hn::BitCast(d, aligner));
  const auto subnormal = hn::Sub(hn::BitCast(du, aligned), aligner);
  const auto code = hn::Or(sign, hn::IfThenElse(hn::Lt(clamped, hn::Set(du, kFirstNormal)), subnormal, normal));
  return hn::IfThenElse(hn::Gt(magnitude, hn::Set(du, 0x7F800000u)), hn::Set(du, 0x7Fu), code);
}

/// to_int8_code of tensor/quantized.h, lane by lane, as the byte's bits.
template <class D>
HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> encode_int8(D d, hn::Vec<D> value) {
  const hn::RebindToUnsigned<D> du;
  const auto number = hn::IfThenElseZero(hn::Eq(value, value), value);
  const auto clamped = hn::Min(hn::Max(number, hn::Set(d, -127.0f)), hn::Set(d, 127.0f));
  const auto aligner = hn::Set(d, 12582912.0f);
  const auto difference = hn::Sub(hn::BitCast(du, hn::Add(clamped, aligner)), hn::BitCast(du, aligner));
  return hn::And(difference, hn::Set(du, 0xFFu));
}

template <class Encode, typename T>
HWY_INLINE void encode_run(const T* x, const float* multiplier, float reciprocal, std::uint8_t* codes,
                           std::int64_t begin, std::int64_t end, const Encode& encode) {
  for_each_vector(end - begin, [&](auto d, std::int64_t offset) HWY_ATTR {
    const std::int64_t i = begin + offset;
    const auto value = hn::Mul(load_scaled(d, x, multiplier, i), hn::Set(d, reciprocal));
    const hn::Rebind<std::uint8_t, decltype(d)> d8;
    hn::StoreU(hn::TruncateTo(d8, encode(d, value)), d8, codes + i);
  });
}

template <typename T>
HWY_INLINE void encode_codes(DType format, const T* x, const float* multiplier, float dequant_scale,
                             std::uint8_t* codes, std::int64_t begin, std::int64_t end) {
  const float reciprocal = 1.0f / dequant_scale;
  if (format == DType::kE4M3) {
    encode_run(x, multiplier, reciprocal, codes, begin, end,
               [](auto d, auto value) HWY_ATTR { return encode_float8<3, 7, 0x7E>(d, value); });
  } else if (format == DType::kE5M2) {
    encode_run(x, multiplier, reciprocal, codes, begin, end,
               [](auto d, auto value) HWY_ATTR { return encode_float8<2, 15, 0x7B>(d, value); });
  } else {
    encode_run(x, multiplier, reciprocal, codes, begin, end,
               [](auto d, auto value) HWY_ATTR { return encode_int8(d, value); });
  }
}

template <typename T>
HWY_INLINE void quantize_row(const QuantizeArgs& args, const T* x, std::int64_t row) {
  const std::int64_t inner = args.out.inner();
  const DType format = args.out.codes.dtype();
  const float* multiplier = args.multiplier.defined() ? args.multiplier.f32() : nullptr;
  float* scales = args.out.dequant_scale.f32();
  auto* codes = static_cast<std::uint8_t*>(args.out.codes.data()) + row * inner;
  if (args.out.grain == ScaleGrain::kTensor) {
    encode_codes(format, x, multiplier, scales[0], codes, 0, inner);
  } else {
    const std::int64_t length = args.out.grain == ScaleGrain::kRow ? inner : kScaleBlock;
    float* scale = scales + row * ((inner + length - 1) / length);
    std::int64_t next_outlier = 0;
    for (std::int64_t begin = 0; begin < inner; begin += length, ++scale) {
      const std::int64_t end = begin + length < inner ? begin + length : inner;
      *scale = dequant_scale_of(largest_magnitude_of(args, x, begin, end, next_outlier), format);
      encode_codes(format, x, multiplier, *scale, codes, begin, end);
    }
  }
  if (!args.outliers.defined()) return;
  const std::int64_t count = args.outliers.dim(0);
  const auto* columns = args.outliers.as<std::int32_t>();
  auto* values = args.outlier_values.as<BFloat16>() + row * count;
  const hn::CappedTag<float, 1> one;
  for (std::int64_t i = 0; i < count; ++i) {
    store(one, load_scaled(one, x, multiplier, columns[i]), values + i);
    codes[columns[i]] = 0;
  }
}

void quantize_rows_of(const QuantizeArgs& args, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    const void* address = args.x.rank() == 3 ? Row::address(args.x, {row / args.x.dim(1), row % args.x.dim(1)})
                                             : Row::address(args.x, {row});
    with_any_float(args.x.dtype(), address, [&](const auto* x) HWY_ATTR { quantize_row(args, x, row); });
  }
}

}  // namespace octavo::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace octavo::ops {

HWY_EXPORT(quantize_rows_of);

void quantize_rows_of(const QuantizeArgs& args, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(quantize_rows_of)(args, begin, end);
}

}  // namespace octavo::ops
#endif  // HWY_ONCE
