#include "ops/conv2d/conv2d.h"

#include <gtest/gtest.h>

#include "ops/op_test.h"

namespace octavo::ops {
namespace {

using testing::expect_close;

struct Case {
  std::int64_t batch = 1;
  std::int64_t height = 9;
  std::int64_t width = 7;
  std::int64_t in_channels = 32;
  std::int64_t out_channels = 32;
  int kernel = 3;
  int stride = 1;
  int pad_before = 1;
  int pad_after = 1;
  bool upsample = false;
  bool bias = true;
  bool residual = false;
  bool residual_is_out = false;
  DType x = DType::kF32;
  DType weight = DType::kF16;
  DType out = DType::kF32;

  std::string name() const {
    return fmt::format("B{} {}x{} {}->{} kernel{} stride{} pad{},{} upsample{} bias{} residual{}{} {}x{}->{}", batch,
                       height, width, in_channels, out_channels, kernel, stride, pad_before, pad_after, upsample, bias,
                       residual, residual_is_out ? " in place" : "", dtype_name(x), dtype_name(weight),
                       dtype_name(out));
  }
};

void check(const Case& c) {
  TestContext context(1);  // many small cases: waking threads would be most of the time
  if (c.x == DType::kBF16 && !context.get().traits().has_avx512_bf16) return;  // only the reference supports it there
  const int zoom = c.upsample ? 2 : 1;
  const auto side = [&](std::int64_t in) { return (in * zoom + c.pad_before + c.pad_after - c.kernel) / c.stride + 1; };
  const Shape out_shape{c.batch, side(c.height), side(c.width), c.out_channels};
  const TestTensor x = TestTensor::random(c.x, Shape{c.batch, c.height, c.width, c.in_channels}, 1);
  const TestTensor weight =
      TestTensor::random(c.weight, Shape{c.out_channels, c.in_channels, c.kernel, c.kernel}, 2, 0.1f);
  const TestTensor bias = TestTensor::random(DType::kF32, Shape{c.out_channels}, 3);
  const TestTensor residual = TestTensor::random(c.out, out_shape, 4);
  const auto packed = pack_conv_weight(context.device(), weight, c.x);
  ASSERT_TRUE(packed.ok());
  const auto run = [&](std::string_view row) {
    TestTensor out(c.out, out_shape);
    if (c.residual_is_out) out = TestTensor::random(c.out, out_shape, 4);
    conv2d(context.with_row("conv2d", row), {.x = x,
                                             .weight = *packed,
                                             .bias = c.bias ? bias.view() : TensorView(),
                                             .residual = !c.residual         ? TensorView()
                                                         : c.residual_is_out ? out.view()
                                                                             : residual.view(),
                                             .stride = c.stride,
                                             .pad_before = c.pad_before,
                                             .pad_after = c.pad_after,
                                             .upsample = c.upsample,
                                             .out = out});
    return out;
  };
  EXPECT_TRUE(expect_close(run("onednn_packed"), run("reference"), op_tolerance(c.out))) << c.name();
}

TEST(Conv2d, equals_reference_over_channels_and_sizes) {
  for (const DType x : {DType::kF32, DType::kBF16}) {
    for (const DType weight : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (const auto& [in, out] : {std::pair{16, 96}, {96, 64}, {32, 3}, {4, 16}, {5, 7}, {64, 64}}) {
        check({.in_channels = in, .out_channels = out, .x = x, .weight = weight});
        check({.in_channels = in,
               .out_channels = out,
               .kernel = 1,
               .pad_before = 0,
               .pad_after = 0,
               .x = x,
               .weight = weight});
      }
    }
    for (const std::int64_t height : {1, 2, 3, 16, 33}) {
      for (const std::int64_t width : {1, 2, 5, 32}) {
        check({.batch = 2, .height = height, .width = width, .x = x});
      }
    }
  }
}

TEST(Conv2d, equals_reference_with_stride_and_one_sided_padding) {
  for (const DType x : {DType::kF32, DType::kBF16}) {
    check({.height = 16, .width = 18, .stride = 2, .x = x});
    check({.height = 16, .width = 18, .stride = 2, .pad_before = 0, .pad_after = 1, .x = x});
    check({.height = 17, .width = 5, .stride = 2, .pad_before = 0, .pad_after = 1, .x = x});
  }
}

TEST(Conv2d, equals_reference_with_upsample) {
  for (const DType x : {DType::kF32, DType::kBF16}) {
    for (const std::int64_t side : {1, 2, 3, 8, 13}) {
      check({.batch = 2, .height = side, .width = side + 1, .upsample = true, .x = x, .out = x});
    }
  }
}

TEST(Conv2d, equals_reference_with_residual_and_output_types) {
  for (const DType x : {DType::kF32, DType::kBF16}) {
    for (const DType out : {DType::kF32, DType::kBF16}) {
      if (x == DType::kF32 && out == DType::kBF16) continue;  // only the reference supports it
      for (const bool bias : {false, true}) {
        check({.bias = bias, .x = x, .out = out});
        check({.bias = bias, .residual = true, .x = x, .out = out});
        check({.bias = bias, .residual = true, .residual_is_out = true, .x = x, .out = out});
      }
    }
  }
}

TEST(Conv2d, a_picture_does_not_depend_on_its_batch) {
  TestContext context;
  const TestTensor x = TestTensor::random(DType::kF32, Shape{3, 12, 10, 32}, 1);
  const TestTensor weight = TestTensor::random(DType::kF16, Shape{48, 32, 3, 3}, 2);
  const TestTensor bias = TestTensor::random(DType::kF32, Shape{48}, 3);
  const auto packed = pack_conv_weight(context.device(), weight, DType::kF32);
  ASSERT_TRUE(packed.ok());
  const auto run = [&](std::int64_t begin, std::int64_t count) {
    TestTensor out(DType::kF32, Shape{count, 12, 10, 48});
    conv2d(context.with_row("conv2d", "onednn_packed"),
           {.x = x.view().slice(0, begin, count), .weight = *packed, .bias = bias, .residual = {}, .out = out});
    return out;
  };
  const TestTensor all = run(0, 3);
  for (std::int64_t i = 0; i < 3; ++i) EXPECT_TRUE(same_bits(run(i, 1), all.view().slice(0, i, 1))) << i;
}

/// Every row of the table: the picture's output, drawn in bands that carry one row of their neighbours.
void check_bands(DType dtype, int stride, bool upsample) {
  TestContext context(2);
  if (dtype == DType::kBF16 && !context.get().traits().has_avx512_bf16) return;
  const std::int64_t height = 24, width = 20, out_height = upsample ? 48 : height / stride;
  const std::int64_t out_width = upsample ? 40 : width / stride;
  const int pad_before = stride == 2 ? 0 : 1;
  const TestTensor x = TestTensor::random(dtype, Shape{1, height, width, 32}, 1);
  const TestTensor weight = TestTensor::random(DType::kF16, Shape{48, 32, 3, 3}, 2, 0.1f);
  const TestTensor bias = TestTensor::random(DType::kF32, Shape{48}, 3);
  const auto packed = pack_conv_weight(context.device(), weight, dtype);
  ASSERT_TRUE(packed.ok());
  for (const std::string_view row : context.rows(conv2d_table())) {
    Conv2dArgs args{.x = x,
                    .weight = *packed,
                    .bias = bias,
                    .residual = {},
                    .stride = stride,
                    .pad_before = pad_before,
                    .upsample = upsample,
                    .out = {}};
    const TestTensor whole(dtype, Shape{1, out_height, out_width, 48});
    args.out = whole;
    conv2d(context.with_row("conv2d", row), args);
    const TestTensor bands(dtype, Shape{1, out_height, out_width, 48});
    for (const auto& [first, rows] : {std::pair{0, 4}, {4, 8}, {12, 12}}) {  // rows of x
      args.halo_above = first > 0 && pad_before > 0;
      args.halo_below = first + rows < height;
      args.x = x.view().slice(1, first - args.halo_above, rows + args.halo_above + args.halo_below);
      args.out = bands.view().slice(1, first * out_height / height, rows * out_height / height);
      conv2d(context.with_row("conv2d", row), args);
    }
    // Mostly the same bits, but oneDNN cuts its loops by the picture's size.
    EXPECT_TRUE(expect_close(bands, whole, op_tolerance(dtype)))
        << row << " " << dtype_name(dtype) << " stride" << stride << " upsample" << upsample;
  }
}

TEST(Conv2d, bands_with_a_halo_equal_the_whole_picture) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    check_bands(dtype, 1, false);
    check_bands(dtype, 1, true);
    check_bands(dtype, 2, false);
  }
}

TEST(Conv2d, wrong_output_size_is_refused) {
  TestContext context;
  const TestTensor x(DType::kF32, Shape{1, 8, 8, 4});
  const TestTensor weight(DType::kF32, Shape{4, 4, 3, 3});
  const TestTensor out(DType::kF32, Shape{1, 8, 9, 4});
  EXPECT_THROW(conv2d(context.get(), {.x = x, .weight = {.plain = weight}, .bias = {}, .residual = {}, .out = out}),
               CheckFailure);
}

}  // namespace
}  // namespace octavo::ops
