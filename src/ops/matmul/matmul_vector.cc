// The vectorised parts of products: weights widened to f32, the epilogue, and our own product of panels.
#include "ops/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/matmul/matmul_vector.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include "ops/activation/activation-inl.h"
#include "ops/matmul/matmul_kernels.h"
#include "ops/tile_product-inl.h"
#include "ops/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace octavo::ops::HWY_NAMESPACE {

void widen_elements(DType dtype, const void* from, DType to_dtype, void* to, std::int64_t begin, std::int64_t end) {
  with_any_number(dtype, from, [&](const auto* elements) HWY_ATTR {
    with_f32_or_bf16(to_dtype, to, [&](auto* wide) HWY_ATTR {
      for_each_vector(end - begin, [&](auto d, std::int64_t i)
                                       HWY_ATTR { store(d, load(d, elements + begin + i), wide + begin + i); });
    });
  });
}

void finish_tile(const MatmulArgs& args, const ProductTile& tile) {
  const std::int64_t rows = matmul_rows(args.out);
  const Epilogue& epilogue = args.epilogue;
  const std::int64_t first = tile.first_column;
  const float* bias = tile.adds_bias && epilogue.bias.defined() ? epilogue.bias.f32() + first : nullptr;
  with_activation(epilogue.activation, [&](const auto& activate) HWY_ATTR {
    for (std::int64_t i = 0; i < tile.rows; ++i) {
      const std::int64_t row = tile.first_row + i;
      const float* value = tile.values + i * tile.stride;
      const float* gate = matmul_gate_row(epilogue, row, rows);
      const float* residual =
          epilogue.residual.defined() ? static_cast<const float*>(matmul_row(epilogue.residual, row)) + first : nullptr;
      if (gate != nullptr) gate += first;
      with_f32_or_bf16(args.out.dtype(), matmul_row(args.out, row), [&](auto* to) HWY_ATTR {
        for_each_vector(tile.columns, [&](auto d, std::int64_t j) HWY_ATTR {
          auto result = load(d, value + j);
          if (bias != nullptr) result = hn::Add(result, load(d, bias + j));
          result = activate(d, result);
          if (gate != nullptr) result = hn::Mul(result, load(d, gate + j));
          if (residual != nullptr) result = hn::Add(result, load(d, residual + j));
          store(d, result, to + first + j);
        });
      });
    }
  });
}

/// kPanelRows rows of x times every panel; each tile is finished while it is in the first-level cache.
void multiply_panels(const MatmulArgs& args, const float* panels, std::int64_t block) {
  const std::int64_t group_rows = args.x.dim(-2);
  const std::int64_t blocks = (group_rows + kPanelRows - 1) / kPanelRows;
  const std::int64_t first = block % blocks * kPanelRows;
  const std::int64_t first_row = block / blocks * group_rows + first;
  const auto rows = static_cast<int>(group_rows - first < kPanelRows ? group_rows - first : kPanelRows);
  const std::int64_t inner = args.x.dim(-1);
  const std::int64_t width = args.out.dim(-1);
  HWY_ALIGN float tile[kPanelRows * kPanelColumns];
  for (std::int64_t column = 0; column < width; column += kPanelColumns, panels += inner * kPanelColumns) {
    tile_product_f32({.a = matmul_row(args.x, first_row),
                      .a_stride = args.x.stride(-2),
                      .b = panels,
                      .b_stride = kPanelColumns,
                      .c = tile,
                      .c_stride = kPanelColumns,
                      .rows = rows,
                      .depth = static_cast<int>(inner),
                      .columns = kPanelColumns,
                      .accumulate = false});
    finish_tile(args, {.values = tile,
                       .stride = kPanelColumns,
                       .first_row = first_row,
                       .rows = rows,
                       .first_column = column,
                       .columns = width - column < kPanelColumns ? width - column : kPanelColumns,
                       .adds_bias = true});
  }
}

}  // namespace octavo::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace octavo::ops {

HWY_EXPORT(widen_elements);
HWY_EXPORT(finish_tile);
HWY_EXPORT(multiply_panels);

void widen_elements(DType dtype, const void* from, DType to_dtype, void* to, std::int64_t begin, std::int64_t end) {
  HWY_DYNAMIC_DISPATCH(widen_elements)(dtype, from, to_dtype, to, begin, end);
}
void finish_product(const MatmulArgs& args, const ProductTile& tile) { HWY_DYNAMIC_DISPATCH(finish_tile)(args, tile); }
void panel_product(const MatmulArgs& args, const float* panels, std::int64_t block) {
  HWY_DYNAMIC_DISPATCH(multiply_panels)(args, panels, block);
}

}  // namespace octavo::ops
#endif  // HWY_ONCE
