#include "ops/group_norm/group_norm_bands.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "ops/group_norm/group_norm.h"
#include "ops/op_test.h"

namespace octavo::ops {
namespace {

using testing::expect_close;

/// The picture normalised in bands of `band_rows`, the last band first.
TestTensor in_bands(TestContext& context, std::string_view row, const TestTensor& x, const TestTensor& weight,
                    const TestTensor& bias, int groups, DType out_dtype, std::int64_t band_rows) {
  const std::int64_t height = x.view().dim(1), width = x.view().dim(2), channels = x.view().dim(3);
  const TestTensor statistics(DType::kF32, Shape{group_norm_blocks(height * width), 2, channels});
  const TestTensor coefficients(DType::kF32, Shape{2, channels});
  TestTensor out(out_dtype, x.view().shape());
  const auto for_bands = [&](const auto& visit) {
    for (std::int64_t first = (height - 1) / band_rows * band_rows; first >= 0; first -= band_rows) {
      visit(first, std::min(band_rows, height - first));
    }
  };
  for_bands([&](std::int64_t first, std::int64_t rows) {
    group_norm_measure(context.with_row("group_norm_measure", row),
                       {.x = x.view().slice(1, first, rows), .first_pixel = first * width, .statistics = statistics});
  });
  group_norm_join(context.get(), {.statistics = statistics,
                                  .pixels = height * width,
                                  .weight = weight,
                                  .groups = groups,
                                  .coefficients = coefficients});
  for_bands([&](std::int64_t first, std::int64_t rows) {
    group_norm_apply(context.with_row("group_norm_apply", row), {.x = x.view().slice(1, first, rows),
                                                                 .coefficients = coefficients,
                                                                 .bias = bias,
                                                                 .silu = true,
                                                                 .out = out.view().slice(1, first, rows)});
  });
  return out;
}

TEST(GroupNormBands, every_row_equals_the_whole_picture) {
  TestContext context(3);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const auto& [channels, groups] : {std::pair{64, 32}, {40, 4}, {7, 1}}) {
      for (const auto& [height, width, band] : {std::tuple{48, 32, 8}, {37, 64, 4}, {20, 16, 16}, {5, 256, 1}}) {
        const TestTensor x = TestTensor::random(dtype, Shape{1, height, width, channels}, 1, 2, 0.5f);
        const TestTensor weight = TestTensor::random(DType::kF32, Shape{channels}, 2);
        const TestTensor bias = TestTensor::random(DType::kF32, Shape{channels}, 3);
        for (const std::string_view row : context.rows(group_norm_measure_table())) {
          const TestTensor whole(dtype, x.view().shape());
          group_norm(context.with_row("group_norm", row),
                     {.x = x, .weight = weight, .bias = bias, .groups = groups, .silu = true, .out = whole});
          const TestTensor bands = in_bands(context, row, x, weight, bias, groups, dtype, band);
          if (row == "reference") {
            EXPECT_TRUE(expect_close(bands, whole, op_tolerance(dtype))) << height << "x" << width << "x" << channels;
          } else {
            EXPECT_TRUE(same_bits(bands, whole)) << row << " " << height << "x" << width << "x" << channels;
          }
        }
      }
    }
  }
}

TEST(GroupNormBands, a_band_must_begin_at_a_block) {
  TestContext context;
  const TestTensor x(DType::kF32, Shape{1, 4, 64, 8});
  const TestTensor statistics(DType::kF32, Shape{2, 2, 8});
  EXPECT_THROW(group_norm_measure(context.get(), {.x = x, .first_pixel = 64, .statistics = statistics}), CheckFailure);
  EXPECT_THROW(group_norm_measure(context.get(), {.x = x, .first_pixel = 512, .statistics = statistics}), CheckFailure);
}

}  // namespace
}  // namespace octavo::ops
