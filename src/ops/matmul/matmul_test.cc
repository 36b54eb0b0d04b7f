#include "ops/matmul/matmul.h"

#include <gtest/gtest.h>

#include <optional>

#include "ops/op_test.h"

namespace octavo::ops {
namespace {

using testing::expect_close;
using testing::kExact;
using testing::kOpF32;

/// Everything that one product needs, at random.
struct Case {
  std::int64_t batch = 1;
  std::int64_t rows = 5;  // of each batch row
  std::int64_t inner = 32;
  std::int64_t width = 48;
  DType x = DType::kF32;
  DType weight = DType::kF16;
  DType out = DType::kF32;
  bool bias = true;
  Activation activation = Activation::kNone;
  bool gate = false;
  bool residual = false;
  bool residual_is_out = false;
  std::int64_t x_padding = 0;  // unused elements after each row
  std::int64_t out_padding = 0;

  std::string name() const {
    return fmt::format("B{} T{} K{} N{} {}x{}->{} bias{} act{} gate{} residual{}{} pad{},{}", batch, rows, inner, width,
                       dtype_name(x), dtype_name(weight), dtype_name(out), bias, static_cast<int>(activation), gate,
                       residual, residual_is_out ? " in place" : "", x_padding, out_padding);
  }
};

class Product {
 public:
  Product(TestContext& context, const Case& c)
      : x_(TestTensor::random(c.x, Shape{c.batch, c.rows, c.inner}, 1, 1, 0, c.x_padding)),
        weight_(TestTensor::random(c.weight, Shape{c.width, c.inner}, 2, 0.1f)),
        bias_(TestTensor::random(DType::kF32, Shape{c.width}, 3)),
        gate_(TestTensor::random(DType::kF32, Shape{c.batch, c.width}, 4, 1, 0, 24)),
        case_(c) {
    auto packed = pack_matmul_weight(context.device(), weight_, c.x);
    OCTAVO_CHECK(packed.ok(), "{}", packed.status().to_string());
    args_.x = x_;
    args_.weight = *packed;
    if (c.bias) args_.epilogue.bias = bias_;
    args_.epilogue.activation = c.activation;
    if (c.gate) args_.epilogue.gate = gate_;
  }

  TestTensor run(TestContext& context, std::string_view row) {
    const Shape shape{case_.batch, case_.rows, case_.width};
    const TestTensor residual = TestTensor::random(DType::kF32, shape, 5);
    TestTensor out(case_.out, shape, case_.out_padding);
    if (case_.residual && case_.residual_is_out) {
      out = TestTensor::random(DType::kF32, shape, 5, 1, 0, case_.out_padding);
    }
    args_.out = out;
    if (case_.residual) args_.epilogue.residual = case_.residual_is_out ? out : residual;
    matmul(context.with_row("matmul", row), args_);
    return out;
  }

 private:
  TestTensor x_, weight_, bias_, gate_;
  Case case_;
  MatmulArgs args_;
};

/// The row that packed weights lead to on this processor ("" = free to choose) against the reference.
void check(const Case& c) {
  TestContext context(1);  // many small cases: waking threads would be most of the time
  Product product(context, c);
  const TestTensor expected = product.run(context, "reference");
  const TestTensor actual = product.run(context, "");
  EXPECT_TRUE(expect_close(actual, expected, op_tolerance(c.out))) << c.name();
}

TEST(Matmul, equals_reference_over_shapes_and_weight_types) {
  for (const DType x : {DType::kF32, DType::kBF16}) {
    for (const DType weight : {DType::kF32, DType::kF16, DType::kBF16}) {
      for (const std::int64_t width : {1, 4, 37, 64, 192}) {
        for (const std::int64_t inner : {1, 17, 64, 192}) {
          for (const std::int64_t rows : {1, 2, 33}) {
            check({.rows = rows, .inner = inner, .width = width, .x = x, .weight = weight});
          }
        }
      }
    }
  }
}

TEST(Matmul, equals_reference_with_every_epilogue) {
  for (const DType x : {DType::kF32, DType::kBF16}) {
    for (const Activation activation :
         {Activation::kNone, Activation::kSilu, Activation::kGeluTanh, Activation::kGeluErf, Activation::kQuickGelu}) {
      for (const bool bias : {false, true}) {
        for (const DType out : {DType::kF32, DType::kBF16}) {
          check({.batch = 2,
                 .rows = 20,
                 .inner = 64,
                 .width = 96,
                 .x = x,
                 .out = out,
                 .bias = bias,
                 .activation = activation});
        }
        for (const bool gate : {false, true}) {
          for (const bool in_place : {false, true}) {
            check({.batch = 3,
                   .rows = 20,
                   .inner = 64,
                   .width = 96,
                   .x = x,
                   .bias = bias,
                   .activation = activation,
                   .gate = gate,
                   .residual = true,
                   .residual_is_out = in_place});
          }
        }
      }
    }
  }
}

TEST(Matmul, rows_of_x_and_out_may_be_strided) {
  for (const DType x : {DType::kF32, DType::kBF16}) {
    for (const std::int64_t x_padding : {0, 16}) {
      for (const std::int64_t out_padding : {0, 48}) {
        for (const bool gate : {false, true}) {
          check({.batch = 2,
                 .rows = 9,
                 .x = x,
                 .activation = Activation::kGeluTanh,
                 .gate = gate,
                 .residual = gate,
                 .residual_is_out = gate,
                 .x_padding = x_padding,
                 .out_padding = out_padding});
        }
      }
    }
  }
}

TEST(Matmul, writes_a_slice_of_a_joint_buffer_and_nothing_else) {
  TestContext context;
  const TestTensor joint_x = TestTensor::random(DType::kF32, Shape{2, 30, 32}, 1);
  const TestTensor weight = TestTensor::random(DType::kF16, Shape{64, 32}, 2);
  const auto packed = pack_matmul_weight(context.device(), weight, DType::kF32);
  ASSERT_TRUE(packed.ok());
  const TestTensor expected(DType::kF32, Shape{2, 30, 64});
  const TestTensor actual(DType::kF32, Shape{2, 30, 64});
  const auto run = [&](const TestTensor& out, std::string_view row) {
    matmul(
        context.with_row("matmul", row),
        {.x = joint_x.view().slice(1, 10, 15), .weight = *packed, .epilogue = {}, .out = out.view().slice(1, 10, 15)});
  };
  run(expected, "reference");
  run(actual, "");
  // The rest of both is still NaN, which kOpF32 takes as equal.
  EXPECT_TRUE(expect_close(actual, expected, kOpF32));
  EXPECT_TRUE(std::isnan(testing::to_floats(actual.view().slice(1, 9, 1))[0]));
  EXPECT_TRUE(std::isnan(testing::to_floats(actual.view().slice(1, 25, 1))[0]));
}

TEST(Matmul, a_row_does_not_depend_on_how_many_there_are) {
  for (const DType x_dtype : {DType::kF32, DType::kBF16}) {
    TestContext context;
    if (x_dtype == DType::kBF16 && !context.get().traits().has_avx512_bf16) continue;
    for (const auto& [width, inner] : {std::pair{192, 768}, {576, 192}, {64, 192}, {37, 53}, {4, 100}}) {
      constexpr std::int64_t kRows = 200;
      const TestTensor x = TestTensor::random(x_dtype, Shape{kRows, inner}, 1);
      const TestTensor weight = TestTensor::random(DType::kF16, Shape{width, inner}, 2);
      const TestTensor bias = TestTensor::random(DType::kF32, Shape{width}, 3);
      const auto packed = pack_matmul_weight(context.device(), weight, x_dtype);
      ASSERT_TRUE(packed.ok());
      const auto run = [&](std::int64_t begin, std::int64_t rows, const TestTensor& out) {
        matmul(context.with_row("matmul", ""),
               {.x = x.view().slice(0, begin, rows),
                .weight = *packed,
                .epilogue = {.bias = bias, .activation = Activation::kGeluTanh, .residual = {}, .gate = {}},
                .out = out});
      };
      const TestTensor all(DType::kF32, Shape{kRows, width});
      run(0, kRows, all);
      for (const std::int64_t rows : {1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 32, 33, 47, 64, 65, 77, 100, 127, 154, 199}) {
        const std::int64_t begin = (kRows - rows) / 2;
        const TestTensor part(DType::kF32, Shape{rows, width});
        run(begin, rows, part);
        EXPECT_TRUE(expect_close(part, all.view().slice(0, begin, rows), kExact))
            << dtype_name(x_dtype) << " N" << width << " K" << inner << " M" << rows;
      }
    }
  }
}

TEST(Matmul, bias_and_residual_may_be_bf16) {
  TestContext context(1);
  const Shape shape{2, 5, 48};
  const TestTensor x = TestTensor::random(DType::kF32, Shape{2, 5, 32}, 1);
  const TestTensor weight = TestTensor::random(DType::kF16, Shape{48, 32}, 2);
  const auto packed = pack_matmul_weight(context.device(), weight, DType::kF32);
  ASSERT_TRUE(packed.ok());
  const auto run = [&](DType dtype) {
    const TestTensor bias = TestTensor::random(DType::kBF16, Shape{48}, 3);
    const TestTensor residual = TestTensor::random(DType::kBF16, shape, 5);
    TestTensor bias_read(dtype, Shape{48}), residual_read(dtype, shape), out(dtype, shape);
    bias_read.for_each_row([&](const Row& row) {
      for (std::int64_t n = 0; n < 48; ++n) row.set(n, Row(bias, {})[n]);
    });
    for (std::int64_t b = 0; b < 2; ++b) {
      for (std::int64_t t = 0; t < 5; ++t) {
        for (std::int64_t n = 0; n < 48; ++n) Row(residual_read, {b, t}).set(n, Row(residual, {b, t})[n]);
      }
    }
    matmul(context.get(),
           {.x = x,
            .weight = *packed,
            .epilogue = {.bias = bias_read, .activation = Activation::kSilu, .residual = residual_read, .gate = {}},
            .out = out});
    return out;
  };
  EXPECT_TRUE(expect_close(run(DType::kBF16), run(DType::kF32), op_tolerance(DType::kBF16)));
}

TEST(Matmul, sixteen_bit_weights_stay_sixteen_bit) {
  TestContext context;
  const TestTensor weight = TestTensor::random(DType::kF16, Shape{128, 256}, 2);
  const auto packed = pack_matmul_weight(context.device(), weight, DType::kF32);
  ASSERT_TRUE(packed.ok());
  if (packed->packed == nullptr) return;  // below AVX2 only the reference runs
  EXPECT_EQ(packed->packed->byte_count(), 128u * 256u * 2u);
}

TEST(Matmul, wrong_shapes_are_refused_by_name) {
  TestContext context;
  const TestTensor x(DType::kF32, Shape{3, 8});
  const TestTensor weight(DType::kF32, Shape{4, 9});
  const TestTensor out(DType::kF32, Shape{3, 4});
  EXPECT_THROW(matmul(context.get(), {.x = x, .weight = {.plain = weight}, .epilogue = {}, .out = out}), CheckFailure);
}

TEST(Matmul, no_rows_is_no_work) {
  TestContext context;
  const TestTensor weight = TestTensor::random(DType::kF32, Shape{4, 8}, 1);
  const TensorView x(static_cast<void*>(nullptr), DType::kF32, Shape{0, 8});
  const TensorView out(static_cast<void*>(nullptr), DType::kF32, Shape{0, 4});
  matmul(context.get(), {.x = x, .weight = {.plain = weight}, .epilogue = {}, .out = out});
}

}  // namespace
}  // namespace octavo::ops
