// The tile product in f32, for the kernels compiled once for each instruction set. Include after hwy/foreach_target.h.

#if defined(OCTAVO_OPS_TILE_PRODUCT_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef OCTAVO_OPS_TILE_PRODUCT_INL_H
#undef OCTAVO_OPS_TILE_PRODUCT_INL_H
#else
#define OCTAVO_OPS_TILE_PRODUCT_INL_H
#endif

#include <hwy/highway.h>

#include "ops/tile_product.h"

HWY_BEFORE_NAMESPACE();
namespace octavo::ops::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_AVX2
inline constexpr int kTileVectors = 2;  // 16 registers: 6 x 2 sums, 2 columns, 1 broadcast
#else
inline constexpr int kTileVectors = 4;  // 32 registers: 6 x 4 sums, 4 columns, 1 broadcast
#endif
inline constexpr int kTileRows = 6;

template <int Rows, int Vectors>
HWY_NOINLINE void register_tile(const TileProduct& product, const float* a, const float* b, float* c) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  hn::Vec<decltype(d)> sums[Rows][Vectors];
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < Vectors; ++v) {
      sums[r][v] = product.accumulate ? hn::LoadU(d, c + r * product.c_stride + v * lanes) : hn::Zero(d);
    }
  }
  for (int k = 0; k < product.depth; ++k, b += product.b_stride) {
    hn::Vec<decltype(d)> columns[Vectors];
    for (int v = 0; v < Vectors; ++v) columns[v] = hn::LoadU(d, b + v * lanes);
    for (int r = 0; r < Rows; ++r) {
      const auto value = hn::Set(d, a[r * product.a_stride + k]);
      for (int v = 0; v < Vectors; ++v) sums[r][v] = hn::MulAdd(value, columns[v], sums[r][v]);
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < Vectors; ++v) hn::StoreU(sums[r][v], d, c + r * product.c_stride + v * lanes);
  }
}

template <int Vectors>
HWY_INLINE void column_strip(const TileProduct& product, int column) {
  const float* b = static_cast<const float*>(product.b) + column;
  for (int row = 0; row < product.rows; row += kTileRows) {
    const float* a = static_cast<const float*>(product.a) + row * product.a_stride;
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
        register_tile<kTileRows, Vectors>(product, a, b, c);
    }
  }
}

HWY_INLINE void tile_product_f32(const TileProduct& product) {
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  int column = 0;
  for (; column + kTileVectors * lanes <= product.columns; column += kTileVectors * lanes) {
    column_strip<kTileVectors>(product, column);
  }
  for (; column < product.columns; column += lanes) column_strip<1>(product, column);
}

}  // namespace octavo::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
