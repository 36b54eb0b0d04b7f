// Rows of f32, bf16 and f16 elements as vectors of float, for the kernels compiled once for each instruction set
// (Highway's foreach_target). Include after hwy/foreach_target.h.
//
// Element-wise results do not depend on the vector length; sums do, so they are equal between runs on one machine
// and may differ in the last bits between AVX2 and AVX-512.

#if defined(OCTAVO_OPS_VECTOR_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef OCTAVO_OPS_VECTOR_INL_H
#undef OCTAVO_OPS_VECTOR_INL_H
#else
#define OCTAVO_OPS_VECTOR_INL_H
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>

#include "tensor/float8.h"
#include "tensor/tensor.h"

HWY_BEFORE_NAMESPACE();
namespace octavo::ops::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class D>
HWY_INLINE hn::Vec<D> load(D d, const float* from) {
  return hn::LoadU(d, from);
}

template <class D>
HWY_INLINE hn::Vec<D> load(D d, const BFloat16* from) {
  const hn::Rebind<std::uint16_t, D> d16;
  const hn::Rebind<std::uint32_t, D> d32;
  const auto bits = hn::LoadU(d16, reinterpret_cast<const std::uint16_t*>(from));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
}

template <class D>
HWY_INLINE hn::Vec<D> load(D d, const Float16* from) {
  const hn::Rebind<hwy::float16_t, D> d16;
  return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(from)));
}

/// Codes of 8 bits as numbers, exactly. The FP8 formats lie inside f16: E5M2 is its upper byte, E4M3 is 2^8 times the
/// f16 with the same mantissa and exponent fields, but for its NaN.
template <class D>
HWY_INLINE hn::Vec<D> load(D d, const Float8E4M3* from) {
  const hn::Rebind<std::uint8_t, D> d8;
  const hn::Rebind<std::uint16_t, D> d16;
  const hn::Rebind<std::uint32_t, D> d32;
  const hn::Rebind<hwy::float16_t, D> half;
  const auto codes = hn::PromoteTo(d16, hn::LoadU(d8, reinterpret_cast<const std::uint8_t*>(from)));
  const auto magnitude = hn::And(codes, hn::Set(d16, std::uint16_t{0x7F}));
  const auto sign = hn::ShiftLeft<8>(hn::And(codes, hn::Set(d16, std::uint16_t{0x80})));
  const auto bits = hn::Or(sign, hn::ShiftLeft<7>(magnitude));
  const auto value = hn::Mul(hn::PromoteTo(d, hn::BitCast(half, bits)), hn::Set(d, 256.0f));
  const auto is_nan = hn::Eq(hn::PromoteTo(d32, magnitude), hn::Set(d32, 0x7Fu));
  return hn::IfThenElse(hn::RebindMask(d, is_nan), hn::NaN(d), value);
}

template <class D>
HWY_INLINE hn::Vec<D> load(D d, const Float8E5M2* from) {
  const hn::Rebind<std::uint8_t, D> d8;
  const hn::Rebind<std::uint16_t, D> d16;
  const hn::Rebind<hwy::float16_t, D> half;
  const auto codes = hn::PromoteTo(d16, hn::LoadU(d8, reinterpret_cast<const std::uint8_t*>(from)));
  return hn::PromoteTo(d, hn::BitCast(half, hn::ShiftLeft<8>(codes)));
}

template <class D>
HWY_INLINE hn::Vec<D> load(D d, const std::int8_t* from) {
  const hn::Rebind<std::int8_t, D> d8;
  const hn::Rebind<std::int32_t, D> d32;
  return hn::ConvertTo(d, hn::PromoteTo(d32, hn::LoadU(d8, from)));
}

template <class D>
HWY_INLINE void store(D d, hn::Vec<D> value, float* to) {
  hn::StoreU(value, d, to);
}

/// Nearest, ties to even; NaN stays NaN. (Highway's own demotion to bf16 truncates.)
template <class D>
HWY_INLINE void store([[maybe_unused]] D d, hn::Vec<D> value, BFloat16* to) {
  const hn::Rebind<std::uint16_t, D> d16;
  const hn::Rebind<std::int32_t, D> di32;
  const hn::Rebind<std::uint32_t, D> d32;
  const auto bits = hn::BitCast(d32, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(d32, 0x7FFFu)), odd));
  const auto quiet_nan = hn::Or(hn::ShiftRight<16>(bits), hn::Set(d32, 0x40u));
  const auto is_nan = hn::RebindMask(d32, hn::IsNaN(value));
  const auto result = hn::IfThenElse(is_nan, quiet_nan, rounded);
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di32, result)), d16, reinterpret_cast<std::uint16_t*>(to));
}

/// Nearest, ties to even (the hardware's conversion).
template <class D>
HWY_INLINE void store([[maybe_unused]] D d, hn::Vec<D> value, Float16* to) {
  const hn::Rebind<hwy::float16_t, D> d16;
  hn::StoreU(hn::DemoteTo(d16, value), d16, reinterpret_cast<hwy::float16_t*>(to));
}

/// body(d, i) for whole vectors, then for the tail one element at a time.
template <class Body>
HWY_INLINE void for_each_vector(std::int64_t count, const Body& body) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) body(d, i);
  const hn::CappedTag<float, 1> one;
  for (; i < count; ++i) body(one, i);
}

/// Sum of term(d, i), a vector of values at i and after it. Four partial sums hide the latency of the additions.
template <class Term>
HWY_INLINE float sum_terms(std::int64_t count, const Term& term) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto sum0 = hn::Zero(d);
  auto sum1 = hn::Zero(d);
  auto sum2 = hn::Zero(d);
  auto sum3 = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    sum0 = hn::Add(sum0, term(d, i));
    sum1 = hn::Add(sum1, term(d, i + lanes));
    sum2 = hn::Add(sum2, term(d, i + 2 * lanes));
    sum3 = hn::Add(sum3, term(d, i + 3 * lanes));
  }
  for (; i + lanes <= count; i += lanes) sum0 = hn::Add(sum0, term(d, i));
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3))));
  const hn::CappedTag<float, 1> one;
  for (; i < count; ++i) sum += hn::GetLane(term(one, i));
  return sum;
}

/// body(pointer), the pointer typed by `dtype`: float or BFloat16; const for const data.
template <class Body>
HWY_INLINE void with_f32_or_bf16(DType dtype, void* data, const Body& body) {
  if (dtype == DType::kF32) {
    body(static_cast<float*>(data));
  } else {
    body(static_cast<BFloat16*>(data));
  }
}
template <class Body>
HWY_INLINE void with_f32_or_bf16(DType dtype, const void* data, const Body& body) {
  if (dtype == DType::kF32) {
    body(static_cast<const float*>(data));
  } else {
    body(static_cast<const BFloat16*>(data));
  }
}

/// The same with Float16.
template <class Body>
HWY_INLINE void with_any_float(DType dtype, void* data, const Body& body) {
  if (dtype == DType::kF16) {
    body(static_cast<Float16*>(data));
  } else {
    with_f32_or_bf16(dtype, data, body);
  }
}
template <class Body>
HWY_INLINE void with_any_float(DType dtype, const void* data, const Body& body) {
  if (dtype == DType::kF16) {
    body(static_cast<const Float16*>(data));
  } else {
    with_f32_or_bf16(dtype, data, body);
  }
}

/// The same with codes of 8 bits too.
template <class Body>
HWY_INLINE void with_any_number(DType dtype, const void* data, const Body& body) {
  switch (dtype) {
    case DType::kE4M3:
      return body(static_cast<const Float8E4M3*>(data));
    case DType::kE5M2:
      return body(static_cast<const Float8E5M2*>(data));
    case DType::kI8:
      return body(static_cast<const std::int8_t*>(data));
    default:
      return with_any_float(dtype, data, body);
  }
}

}  // namespace octavo::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
