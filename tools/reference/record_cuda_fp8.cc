// What CUDA's cuda_fp8.h converts, as a short table, and the proof that the table is all there is to know. Its host
// code is plain C++: no GPU, no nvcc. Compiled and run by record_cuda_fp8.py.
//
// For each format, lines of "name number number ...":
//   <format>.first    for codes 1, 2, ... the bits of the smallest positive float that rounds to it
//   <format>.values   the bits of every code's value as f16
//   <format>.bf16     FNV-1a (64 bits) of the codes of all 2^16 bf16 values in the order of their bits
// Fails unless over all 2^32 floats the codes of positive ones rise from 0 to the largest finite one, negative ones
// have the same codes with the sign bit, NaN is 0x7F, and src/tensor/float8.h gives the same codes.
#include <cuda_fp8.h>

#include <cmath>
#include <cstdio>

#include "tensor/float8.h"

namespace {

using octavo::BFloat16;

struct Format {
  const char* name;
  __nv_fp8_interpretation_t interpretation;
  int largest;
  std::uint8_t (*ours)(float value);
};

std::uint8_t encode(const Format& format, float value) {
  return __nv_cvt_float_to_fp8(value, __NV_SATFINITE, format.interpretation);
}

/// The bits of the first positive float of every code; false, with the reason printed, when CUDA or float8.h is not
/// what the header comment says.
bool walk_all_floats(const Format& format, std::uint32_t (&first)[0x80]) {
  int seen = 0;
  for (std::uint32_t bits = 0; bits < 0x80000000u; ++bits) {
    const float value = std::bit_cast<float>(bits);
    const std::uint8_t code = encode(format, value);
    const std::uint8_t negative = encode(format, -value);
    if (code != format.ours(value) || negative != format.ours(-value)) {
      std::fprintf(stderr, "%s: float8.h differs at %a\n", format.name, value);
      return false;
    }
    if (std::isnan(value)) {
      if (code == 0x7F && negative == 0x7F) continue;
    } else if (negative == (code | 0x80) && code <= format.largest && (code == seen || code == seen + 1)) {
      if (code != seen) first[code] = bits;
      seen = code;
      continue;
    }
    std::fprintf(stderr, "%s: unexpected code %02x, %02x at %a\n", format.name, code, negative, value);
    return false;
  }
  return seen == format.largest;
}

bool record(const Format& format) {
  std::uint32_t first[0x80] = {};
  if (!walk_all_floats(format, first)) return false;
  std::printf("%s.first", format.name);
  for (int code = 1; code <= format.largest; ++code) std::printf(" %u", first[code]);
  std::printf("\n%s.values", format.name);
  for (int code = 0; code < 256; ++code) {
    const auto byte = static_cast<__nv_fp8_storage_t>(code);
    std::printf(" %u", static_cast<unsigned>(__nv_cvt_fp8_to_halfraw(byte, format.interpretation).x));
  }
  std::uint64_t hash = 0xCBF29CE484222325u;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    __nv_bfloat16_raw raw;
    raw.x = static_cast<unsigned short>(bits);
    const std::uint8_t code = __nv_cvt_bfloat16raw_to_fp8(raw, __NV_SATFINITE, format.interpretation);
    if (code != encode(format, octavo::to_float(BFloat16{static_cast<std::uint16_t>(bits)}))) {
      std::fprintf(stderr, "%s: bf16 %04x is not coded as its float\n", format.name, bits);
      return false;
    }
    hash = (hash ^ code) * 0x100000001B3u;
  }
  std::printf("\n%s.bf16 %llu\n", format.name, static_cast<unsigned long long>(hash));
  return true;
}

}  // namespace

int main() {
  const Format e4m3{"e4m3", __NV_E4M3, 0x7E, [](float value) { return octavo::to_float8_e4m3(value).bits; }};
  const Format e5m2{"e5m2", __NV_E5M2, 0x7B, [](float value) { return octavo::to_float8_e5m2(value).bits; }};
  return record(e4m3) && record(e5m2) ? 0 : 1;
}
