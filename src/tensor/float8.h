// The two FP8 formats of the Open Compute Project (OCP 8-bit Floating Point Specification, revision 1.0): E4M3 (sign,
// 4 exponent bits with bias 7, 3 mantissa bits; no infinity, one NaN code a sign) and E5M2 (sign, 5, bias 15, 2; with
// infinities and NaNs as in IEEE 754).
//
// Encoding equals CUDA's __nv_cvt_float_to_fp8 with __NV_SATFINITE and the cvt.rn.satfinite instructions: round to
// nearest, ties to even; what is too large, infinity included, becomes the largest finite value; NaN becomes 0x7F.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "tensor/dtype.h"

namespace octavo {

struct Float8E4M3 {
  std::uint8_t bits = 0;
};
struct Float8E5M2 {
  std::uint8_t bits = 0;
};

template <>
inline constexpr DType kDTypeOf<Float8E4M3> = DType::kE4M3;
template <>
inline constexpr DType kDTypeOf<Float8E5M2> = DType::kE5M2;

inline constexpr float kE4M3Largest = 448.0f;    // 0x7E
inline constexpr float kE5M2Largest = 57344.0f;  // 0x7B

/// The value of every code; exact, because every code is a float.
extern const std::array<float, 256> kE4M3Values;
extern const std::array<float, 256> kE5M2Values;

inline float to_float(Float8E4M3 value) { return kE4M3Values[value.bits]; }
inline float to_float(Float8E5M2 value) { return kE5M2Values[value.bits]; }

namespace float8 {

/// Rounds a float's magnitude to `kMantissaBits` and re-biases its exponent. Branches are written as selections, so
/// that loops over arrays vectorise. Needs the default rounding mode.
template <int kMantissaBits, int kBias, std::uint8_t kLargestCode>
std::uint8_t encode(float value) {
  constexpr int kDropped = 23 - kMantissaBits;
  constexpr std::uint32_t kRebias = static_cast<std::uint32_t>(127 - kBias) << kMantissaBits;
  constexpr std::uint32_t kFirstNormal = static_cast<std::uint32_t>(128 - kBias) << 23;  // bits of the smallest normal
  constexpr std::uint32_t kLargest = (kLargestCode + kRebias) << kDropped;
  // The float whose last mantissa bit weighs as much as the smallest subnormal code.
  constexpr std::uint32_t kAligner = kFirstNormal + (static_cast<std::uint32_t>(kDropped) << 23);
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFu;
  const std::uint32_t sign = (bits >> 24) & 0x80u;
  const std::uint32_t clamped = magnitude < kLargest ? magnitude : kLargest;
  const std::uint32_t odd = (clamped >> kDropped) & 1u;
  const std::uint32_t normal = ((clamped + ((1u << (kDropped - 1)) - 1u) + odd) >> kDropped) - kRebias;
  // Adding the aligner makes the processor round a subnormal; its bits then count in subnormal codes.
  const float aligned = std::bit_cast<float>(clamped) + std::bit_cast<float>(kAligner);
  const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(aligned) - kAligner;
  const std::uint32_t code = sign | (clamped < kFirstNormal ? subnormal : normal);
  return static_cast<std::uint8_t>(magnitude > 0x7F800000u ? 0x7Fu : code);
}

}  // namespace float8

inline Float8E4M3 to_float8_e4m3(float value) { return {float8::encode<3, 7, 0x7E>(value)}; }
inline Float8E5M2 to_float8_e5m2(float value) { return {float8::encode<2, 15, 0x7B>(value)}; }

}  // namespace octavo
