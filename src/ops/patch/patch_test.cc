#include "ops/patch/patch.h"

#include <gtest/gtest.h>

#include "ops/op_test.h"

namespace octavo::ops {
namespace {

constexpr DType kF32 = DType::kF32;

struct PatchShape {
  std::int64_t batch, channels, height, width;
};
constexpr PatchShape kShapes[] = {{1, 1, 2, 2}, {2, 16, 6, 10}, {3, 16, 48, 24}, {4, 4, 2, 64}};

TEST(Patchify, every_row_puts_channel_then_row_then_column) {
  TestContext context(3);
  for (const PatchShape& s : kShapes) {
    const std::int64_t tokens = s.height / 2 * (s.width / 2);
    for (const std::int64_t repeats : {1, 2}) {  // two: guidance's branches share the latents
      for (const DType dtype : {kF32, DType::kBF16}) {
        for (const std::string_view row : context.rows(patchify_table())) {
          const TestTensor latents = TestTensor::random(kF32, {s.batch, s.channels, s.height, s.width}, 1, 1, 0, 4);
          const TestTensor out(dtype, {repeats * s.batch, tokens, 4 * s.channels}, 3);
          patchify(context.with_row("patchify", row), {.latents = latents, .out = out});
          for (std::int64_t b = 0; b < repeats * s.batch; ++b) {
            for (std::int64_t token = 0; token < tokens; ++token) {
              const std::int64_t y = 2 * (token / (s.width / 2));
              const std::int64_t x = 2 * (token % (s.width / 2));
              for (std::int64_t i = 0; i < 4 * s.channels; ++i) {
                const float value = Row(latents, {b % s.batch, i / 4, y + i % 4 / 2})[x + i % 2];
                ASSERT_EQ(Row(out, {b, token})[i], dtype == kF32 ? value : to_float(to_bfloat16(value))) << row;
              }
            }
          }
        }
      }
    }
  }
}

TEST(Patchify, odd_sides_are_refused) {
  TestContext context;
  const TestTensor latents(kF32, {1, 4, 3, 4});
  const TestTensor out(kF32, {1, 2, 16});
  EXPECT_THROW(patchify(context.get(), {.latents = latents, .out = out}), CheckFailure);
}

TEST(Unpatchify, every_row_undoes_the_output_order) {
  TestContext context(3);
  for (const PatchShape& s : kShapes) {
    const std::int64_t columns = s.width / 2;
    const TestTensor tokens = TestTensor::random(kF32, {s.batch, s.height / 2 * columns, 4 * s.channels}, 1, 1, 0, 5);
    for (const std::string_view row : context.rows(unpatchify_table())) {
      const TestTensor out(kF32, {s.batch, s.channels, s.height, s.width});
      unpatchify(context.with_row("unpatchify", row), {.tokens = tokens, .out = out});
      for (std::int64_t b = 0; b < s.batch; ++b) {
        for (std::int64_t token = 0; token < s.height / 2 * columns; ++token) {
          for (std::int64_t i = 0; i < 4 * s.channels; ++i) {  // (dy, dx, c)
            const std::int64_t y = 2 * (token / columns) + i / s.channels / 2;
            const std::int64_t x = 2 * (token % columns) + i / s.channels % 2;
            ASSERT_EQ(Row(out, {b, i % s.channels, y})[x], Row(tokens, {b, token})[i]) << row;
          }
        }
      }
    }
  }
}

TEST(AddPositions, every_row_adds_the_centre_crop) {
  TestContext context(3);
  struct Crop {
    int rows, columns;
  };
  for (const Crop& crop : {Crop{1, 1}, Crop{3, 5}, Crop{12, 4}, Crop{12, 12}}) {
    for (const std::int64_t width : {1, 24, 70}) {
      for (const DType dtype : {kF32, DType::kF16, DType::kBF16}) {
        const TestTensor table = TestTensor::random(dtype, {12, 12, width}, 1);
        for (const std::string_view row : context.rows(add_positions_table())) {
          const Shape shape{2, std::int64_t{crop.rows} * crop.columns, width};
          const TestTensor before = TestTensor::random(kF32, shape, 2, 1, 0, 3);
          const TestTensor x = TestTensor::random(kF32, shape, 2, 1, 0, 3);
          add_positions(context.with_row("add_positions", row),
                        {.x = x, .table = table, .rows = crop.rows, .columns = crop.columns});
          for (std::int64_t b = 0; b < 2; ++b) {
            for (std::int64_t token = 0; token < shape[1]; ++token) {
              const Row position(
                  table, {(12 - crop.rows) / 2 + token / crop.columns, (12 - crop.columns) / 2 + token % crop.columns});
              for (std::int64_t i = 0; i < width; ++i) {
                ASSERT_EQ(Row(x, {b, token})[i], Row(before, {b, token})[i] + position[i]) << row;
              }
            }
          }
        }
      }
    }
  }
}

TEST(AddPositions, a_stream_in_bf16_is_rounded_once) {
  TestContext context;
  const TestTensor table = TestTensor::random(kF32, {6, 6, 20}, 1);
  const TestTensor before = TestTensor::random(DType::kBF16, {2, 8, 20}, 2);
  const TestTensor x = TestTensor::random(DType::kBF16, {2, 8, 20}, 2);
  add_positions(context.get(), {.x = x, .table = table, .rows = 2, .columns = 4});
  for (std::int64_t b = 0; b < 2; ++b) {
    for (std::int64_t token = 0; token < 8; ++token) {
      const Row position(table, {2 + token / 4, 1 + token % 4});
      for (std::int64_t i = 0; i < 20; ++i) {
        ASSERT_EQ(Row(x, {b, token})[i], to_float(to_bfloat16(Row(before, {b, token})[i] + position[i])));
      }
    }
  }
}

TEST(AddPositions, a_picture_larger_than_the_table_is_refused) {
  TestContext context;
  const TestTensor table(kF32, {4, 4, 8});
  const TestTensor x(kF32, {1, 20, 8});
  EXPECT_THROW(add_positions(context.get(), {.x = x, .table = table, .rows = 5, .columns = 4}), CheckFailure);
}

}  // namespace
}  // namespace octavo::ops
