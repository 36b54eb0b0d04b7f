// The small dense product inside our own kernels: a tile of c stays in registers while the depth goes by.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace octavo::ops {

/// c[rows, columns] = a[rows, depth] * b[depth, columns] (+ c when `accumulate`), c in f32. `columns` is a multiple of
/// 16. With bf16, a "depth" is a pair of neighbours: a is [rows, depth][2], b is [depth, columns][2], and strides count
/// pairs. Each row of c is summed in order of the depth whatever `rows` is.
/// f32: tile_product_f32 of tile_product-inl.h, for each instruction set.
struct TileProduct {
  const void* a;
  std::int64_t a_stride;
  const void* b;
  std::int64_t b_stride;
  float* c;
  std::int64_t c_stride;
  int rows;
  int depth;
  int columns;
  bool accumulate;
};

/// On AVX512-BF16 only: products of pairs summed in f32 by vdpbf16ps.
void tile_product_bf16(const TileProduct& product);
/// to[i] = from[i] rounded to nearest even; same machines.
void narrow_to_bf16(const float* from, BFloat16* to, int count);

}  // namespace octavo::ops
