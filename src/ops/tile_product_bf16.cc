// The tile product on AVX512-BF16, where one instruction multiplies 32 pairs and sums them in f32: twice
// the rate of f32. Highway 1.0 has no name for it, hence the intrinsics.
//
// Mapping: 6 rows by 4 vectors of c live in 24 registers; each step of the depth loads 4 vectors of b and broadcasts 6
// pairs of a. Only callers that saw DeviceTraits::has_avx512_bf16 come here.
#include "base/check.h"
#include "ops/tile_product.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>

#define OCTAVO_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))

namespace octavo::ops {
namespace {

constexpr int kLanes = 16;
constexpr int kRows = 6;
constexpr int kVectors = 4;

OCTAVO_AVX512_BF16 inline __m512bh as_pairs(__m512i bits) {
  __m512bh pairs;
  std::memcpy(&pairs, &bits, sizeof(pairs));
  return pairs;
}

template <int Rows, int Vectors>
OCTAVO_AVX512_BF16 void register_tile(const TileProduct& product, const std::int32_t* a, const std::int32_t* b,
                                      float* c) {
  __m512 sums[Rows][Vectors];
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < Vectors; ++v) {
      sums[r][v] = product.accumulate ? _mm512_loadu_ps(c + r * product.c_stride + v * kLanes) : _mm512_setzero_ps();
    }
  }
  for (int k = 0; k < product.depth; ++k, b += product.b_stride) {
    __m512bh columns[Vectors];
    for (int v = 0; v < Vectors; ++v) columns[v] = as_pairs(_mm512_loadu_si512(b + v * kLanes));
    for (int r = 0; r < Rows; ++r) {
      const __m512bh pair = as_pairs(_mm512_set1_epi32(a[r * product.a_stride + k]));
      for (int v = 0; v < Vectors; ++v) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], pair, columns[v]);
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < Vectors; ++v) _mm512_storeu_ps(c + r * product.c_stride + v * kLanes, sums[r][v]);
  }
}

template <int Vectors>
OCTAVO_AVX512_BF16 void column_strip(const TileProduct& product, int column) {
  const auto* b = static_cast<const std::int32_t*>(product.b) + column;
  for (int row = 0; row < product.rows; row += kRows) {
    const auto* a = static_cast<const std::int32_t*>(product.a) + row * product.a_stride;
    float* c = product.c + row * product.c_stride + column;
    switch (product.rows - row) {
      case 1:
        register_tile<1, Vectors>(product, a, b, c);
        break;
      case 2:
        register_tile<2, Vectors>(product, a, b, c);
        break;
      case 3:
        register_tile<3, Vectors>(product, a, b, c);
        break;
      case 4:
        register_tile<4, Vectors>(product, a, b, c);
        break;
      case 5:
        register_tile<5, Vectors>(product, a, b, c);
        break;
      default:
        register_tile<kRows, Vectors>(product, a, b, c);
    }
  }
}

}  // namespace

OCTAVO_AVX512_BF16 void tile_product_bf16(const TileProduct& product) {
  int column = 0;
  for (; column + kVectors * kLanes <= product.columns; column += kVectors * kLanes) {
    column_strip<kVectors>(product, column);
  }
  for (; column + 2 * kLanes <= product.columns; column += 2 * kLanes) column_strip<2>(product, column);
  if (column < product.columns) column_strip<1>(product, column);
}

OCTAVO_AVX512_BF16 void narrow_to_bf16(const float* from, BFloat16* to, int count) {
  for (int i = 0; i < count; i += kLanes) {
    const auto mask = static_cast<__mmask16>(count - i >= kLanes ? 0xFFFFu : (1u << (count - i)) - 1u);
    const __m256bh narrow = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, from + i));
    __m256i bits;
    std::memcpy(&bits, &narrow, sizeof(bits));
    _mm256_mask_storeu_epi16(to + i, mask, bits);
  }
}

}  // namespace octavo::ops

#else

namespace octavo::ops {
void tile_product_bf16(const TileProduct&) { OCTAVO_CHECK(false, "AVX512-BF16 on another architecture"); }
void narrow_to_bf16(const float*, BFloat16*, int) { OCTAVO_CHECK(false, "AVX512-BF16 on another architecture"); }
}  // namespace octavo::ops

#endif
