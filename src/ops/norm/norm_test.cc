#include "ops/norm/norm.h"

#include <gtest/gtest.h>

#include "ops/op_test.h"
#include "ops/quantize/quantize.h"

namespace octavo::ops {
namespace {

constexpr DType kF32 = DType::kF32;
constexpr DType kBF16 = DType::kBF16;

struct NormShape {
  std::int64_t batch, tokens, width, padding;
};
// Tails of every length class, one element, the widths of the models.
constexpr NormShape kShapes[] = {{1, 1, 1, 0},   {1, 3, 7, 2},   {2, 2, 16, 0},    {3, 5, 33, 1},  {2, 9, 64, 0},
                                 {4, 3, 192, 8}, {1, 2, 100, 0}, {2, 300, 320, 0}, {1, 4, 2432, 0}};

/// Everything a norm may read, made anew from fixed seeds.
struct NormInputs {
  explicit NormInputs(const NormShape& s, DType y_dtype = kF32, DType x_dtype = kF32)
      : x(TestTensor::random(x_dtype, {s.batch, s.tokens, s.width}, 1, 3.0f, 2.0f, s.padding)),
        y(TestTensor::random(y_dtype, {s.batch, s.tokens, s.width}, 2, 1.0f, 0.0f, s.padding)),
        weight(TestTensor::random(kF32, {s.width}, 3)),
        bias(TestTensor::random(kF32, {s.width}, 4)),
        shift(TestTensor::random(kF32, {s.batch, s.width}, 5, 1.0f, 0.0f, s.padding)),
        scale(TestTensor::random(kF32, {s.batch, s.width}, 6, 1.0f, 0.0f, s.padding)),
        gate(TestTensor::random(kF32, {s.batch, s.width}, 7, 1.0f, 0.0f, s.padding)) {}
  TestTensor x, y, weight, bias, shift, scale, gate;
};

enum class Affine { kNone, kWeights, kModulation };

LayerNormArgs layer_norm_args(const NormInputs& in, Affine affine, const TensorView& out) {
  LayerNormArgs args;
  args.x = in.x;
  if (affine == Affine::kWeights) {
    args.weight = in.weight;
    args.bias = in.bias;
  }
  if (affine == Affine::kModulation) {
    args.shift = in.shift;
    args.scale = in.scale;
  }
  args.out = out;
  return args;
}

GateResidualNormArgs gate_args(const NormInputs& in, const TensorView& out) {
  GateResidualNormArgs args;
  args.x = in.x;
  args.y = in.y;
  args.gate = in.gate;
  args.shift = in.shift;
  args.scale = in.scale;
  args.out = out;
  return args;
}

TEST(LayerNorm, every_row_equals_the_reference) {
  TestContext context;
  for (const NormShape& s : kShapes) {
    for (const Affine affine : {Affine::kNone, Affine::kWeights, Affine::kModulation}) {
      for (const DType dtype : {kF32, kBF16}) {
        if (s.width == 1 && affine == Affine::kNone) continue;  // all zero: nothing to compare with
        const NormInputs in(s);
        const TestTensor expected(dtype, in.x.view().shape());
        layer_norm(context.with_row("layer_norm", "reference"), layer_norm_args(in, affine, expected));
        for (const std::string_view row : context.rows(layer_norm_table())) {
          const TestTensor actual(dtype, in.x.view().shape(), s.padding);
          layer_norm(context.with_row("layer_norm", row), layer_norm_args(in, affine, actual));
          EXPECT_TRUE(testing::expect_close(actual, expected, op_tolerance(dtype)))
              << row << in.x.view().shape().to_string();
        }
      }
    }
  }
}

TEST(LayerNorm, rows_far_from_zero_keep_their_variance) {
  // A one-pass variance in float would lose every digit here.
  TestContext context;
  const TestTensor x = TestTensor::random(kF32, {1, 4, 320}, 1, 0.5f, 1000.0f);
  for (const std::string_view row : context.rows(layer_norm_table())) {
    const TestTensor out(kF32, {1, 4, 320});
    layer_norm(context.with_row("layer_norm", row), {.x = x, .out = out});
    out.for_each_row([&](const Row& values) {
      double squares = 0;
      for (int i = 0; i < 320; ++i) squares += values[i] * values[i];
      EXPECT_NEAR(squares / 320, 1.0, 1e-3) << row;
    });
  }
}

TEST(LayerNorm, batched_equals_alone_for_any_thread_count) {
  const NormShape s{4, 37, 192, 0};
  const NormInputs in(s);
  TestContext one(1);
  TestContext three(3);
  for (const std::string_view row : three.rows(layer_norm_table())) {
    const TestTensor whole(kF32, in.x.view().shape());
    layer_norm(three.with_row("layer_norm", row), layer_norm_args(in, Affine::kModulation, whole));
    const TestTensor alone(kF32, in.x.view().shape());
    for (std::int64_t b = 0; b < s.batch; ++b) {
      LayerNormArgs args;
      args.x = in.x.view().slice(0, b, 1);
      args.shift = in.shift.view().slice(0, b, 1);
      args.scale = in.scale.view().slice(0, b, 1);
      args.out = alone.view().slice(0, b, 1);
      layer_norm(one.with_row("layer_norm", row), args);
    }
    EXPECT_TRUE(alone.same_bytes(whole)) << row;
  }
}

TEST(LayerNorm, wrong_arguments_are_named) {
  TestContext context;
  const NormInputs in({1, 2, 8, 0});
  const TestTensor out(kF32, {1, 2, 8});
  LayerNormArgs args = layer_norm_args(in, Affine::kWeights, out);
  args.bias = TensorView();
  EXPECT_THROW(layer_norm(context.get(), args), CheckFailure);
  const TestTensor narrow(kF32, {1, 2, 7});
  try {
    layer_norm(context.get(), layer_norm_args(in, Affine::kNone, narrow));
    FAIL() << "accepted a narrow out";
  } catch (const CheckFailure& failure) {
    EXPECT_NE(std::string(failure.what()).find("op layer_norm: out is [1, 2, 7]"), std::string::npos) << failure.what();
  }
}

TEST(GateResidualNorm, every_row_equals_the_reference) {
  TestContext context;
  for (const NormShape& s : kShapes) {
    if (s.width == 1) continue;
    for (const DType y_dtype : {kF32, kBF16}) {
      for (const DType dtype : {kF32, kBF16}) {
        const NormInputs reference(s, y_dtype);
        const TestTensor expected(dtype, reference.x.view().shape());
        gate_residual_norm(context.with_row("gate_residual_norm", "reference"), gate_args(reference, expected));
        for (const std::string_view row : context.rows(gate_residual_norm_table())) {
          const NormInputs in(s, y_dtype);  // x is updated in place
          const TestTensor actual(dtype, in.x.view().shape(), s.padding);
          gate_residual_norm(context.with_row("gate_residual_norm", row), gate_args(in, actual));
          EXPECT_TRUE(testing::expect_close(in.x, reference.x, testing::kOpF32)) << row;
          EXPECT_TRUE(testing::expect_close(actual, expected, op_tolerance(dtype))) << row;
        }
      }
    }
  }
}

TEST(GateResidualNorm, without_out_only_the_residual_moves) {
  TestContext context;
  const NormShape s{2, 3, 40, 0};
  const NormInputs normed(s);
  const TestTensor out(kF32, normed.x.view().shape());
  gate_residual_norm(context.get(), gate_args(normed, out));
  for (const std::string_view row : context.rows(gate_residual_norm_table())) {
    const NormInputs in(s);
    gate_residual_norm(context.with_row("gate_residual_norm", row), {.x = in.x, .y = in.y, .gate = in.gate});
    EXPECT_TRUE(testing::expect_close(in.x, normed.x, testing::kOpF32)) << row;
  }
}

/// The second output as its own call would write it: same bits, and the first output unmoved by it.
TEST(SecondModulation, equals_a_call_of_its_own_on_every_row) {
  TestContext context;
  for (const NormShape& s : kShapes) {
    for (const DType dtype : {kF32, kBF16}) {
      const TestTensor shift = TestTensor::random(kF32, {s.batch, s.width}, 8, 1.0f, 0.0f, s.padding);
      const TestTensor scale = TestTensor::random(kF32, {s.batch, s.width}, 9, 1.0f, 0.0f, s.padding);
      const auto check = [&](const auto& op, std::string_view name, std::string_view row, const auto& args_of) {
        const NormInputs in_once(s), in_twice(s), in_other(s);  // x may be updated in place
        const Shape shape = in_once.x.view().shape();
        const TestTensor once(dtype, shape), twice(dtype, shape, s.padding), other(dtype, shape), second(dtype, shape);
        op(context.with_row(name, row), args_of(in_once, once));
        auto args = args_of(in_twice, twice);
        args.second = {.shift = shift, .scale = scale, .out = second};
        op(context.with_row(name, row), args);
        auto other_args = args_of(in_other, other);
        other_args.shift = shift;
        other_args.scale = scale;
        op(context.with_row(name, row), other_args);
        EXPECT_TRUE(same_bits(twice, once)) << row << shape.to_string();
        EXPECT_TRUE(same_bits(second, other)) << row << shape.to_string();
      };
      for (const std::string_view row : context.rows(layer_norm_table())) {
        check(layer_norm, "layer_norm", row, [](const NormInputs& in, const TensorView& out) {
          return layer_norm_args(in, Affine::kModulation, out);
        });
      }
      for (const std::string_view row : context.rows(gate_residual_norm_table())) {
        check(gate_residual_norm, "gate_residual_norm", row, gate_args);
      }
    }
  }
}

TEST(SecondModulation, goes_with_a_modulated_output_only) {
  TestContext context;
  const NormInputs in({1, 2, 8, 0});
  const TestTensor out(kF32, {1, 2, 8}), second(kF32, {1, 2, 8});
  LayerNormArgs plain = layer_norm_args(in, Affine::kWeights, out);
  plain.second = {.shift = in.shift, .scale = in.scale, .out = second};
  EXPECT_THROW(layer_norm(context.get(), plain), CheckFailure);
  GateResidualNormArgs unwritten{.x = in.x, .y = in.y, .gate = in.gate};
  unwritten.second = plain.second;
  EXPECT_THROW(gate_residual_norm(context.get(), unwritten), CheckFailure);
}

/// A residual stream in bf16 is an f32 one that is rounded where it is stored.
TEST(Bf16Residual, every_row_norms_what_it_stored) {
  TestContext context;
  for (const NormShape& s : kShapes) {
    const NormInputs fused(s, kBF16, kBF16), apart(s, kBF16, kBF16), wide(s, kBF16, kF32);
    const Shape shape = fused.x.view().shape();
    // The same values in f32, so that both sides begin alike.
    for (std::int64_t b = 0; b < s.batch; ++b) {
      for (std::int64_t t = 0; t < s.tokens; ++t) {
        for (std::int64_t i = 0; i < s.width; ++i) Row(wide.x, {b, t}).set(i, Row(fused.x, {b, t})[i]);
      }
    }
    const TestTensor out(kBF16, shape), out_apart(kBF16, shape), unused(kF32, shape);
    for (const std::string_view row : context.rows_for(gate_residual_norm_table(), gate_args(fused, out))) {
      gate_residual_norm(context.with_row("gate_residual_norm", row), gate_args(fused, out));
      gate_residual_norm(context.with_row("gate_residual_norm", row), {.x = apart.x, .y = apart.y, .gate = apart.gate});
      EXPECT_TRUE(apart.x.same_bytes(fused.x)) << row;
      layer_norm(context.with_row("layer_norm", row),
                 {.x = apart.x, .shift = apart.shift, .scale = apart.scale, .out = out_apart});
      EXPECT_TRUE(same_bits(out, out_apart)) << row << shape.to_string();
      gate_residual_norm(context.with_row("gate_residual_norm", "reference"), gate_args(wide, unused));
      EXPECT_TRUE(testing::expect_close(fused.x, wide.x, testing::kOpBf16Stored)) << row << shape.to_string();
    }
  }
}

/// Codes as the norm into bf16 and ops::quantize would make them.
TEST(CodedNorm, equals_the_norm_and_then_quantize_bit_for_bit) {
  TestContext context;
  for (const NormShape& s : kShapes) {
    for (const DType x_dtype : {kF32, kBF16}) {
      for (const DType format : {DType::kE4M3, DType::kI8}) {
        for (const std::string_view op : {"layer_norm", "gate_residual_norm"}) {
          const NormInputs in(s, kBF16, x_dtype), in_apart(s, kBF16, x_dtype);
          const Shape shape = in.x.view().shape();
          const TestTensor shift = TestTensor::random(kF32, {s.batch, s.width}, 8);
          const TestTensor scale = TestTensor::random(kF32, {s.batch, s.width}, 9);
          const TestTensor plain(kBF16, shape), plain_second(kBF16, shape);
          const TestCodes codes(format, shape), codes_second(format, shape);
          const TestCodes expected(format, shape), expected_second(format, shape);
          const auto run = [&](const NormInputs& from, const TensorView& out, const TensorView& out_scale,
                               const ops::SecondModulation& second) {
            if (op == "layer_norm") {
              layer_norm(context.with_row(op, "reference"), {.x = from.x,
                                                             .shift = from.shift,
                                                             .scale = from.scale,
                                                             .out = out,
                                                             .out_dequant_scale = out_scale,
                                                             .second = second});
            } else {
              gate_residual_norm(context.with_row(op, "reference"), {.x = from.x,
                                                                     .y = from.y,
                                                                     .gate = from.gate,
                                                                     .shift = from.shift,
                                                                     .scale = from.scale,
                                                                     .out = out,
                                                                     .out_dequant_scale = out_scale,
                                                                     .second = second});
            }
          };
          run(in, codes.codes, codes.scales,
              {.shift = shift, .scale = scale, .out = codes_second.codes, .dequant_scale = codes_second.scales});
          run(in_apart, plain, {}, {.shift = shift, .scale = scale, .out = plain_second, .dequant_scale = {}});
          for (const auto& [from, to] : {std::pair(&plain, &expected), std::pair(&plain_second, &expected_second)}) {
            quantize(context.get(),
                     {.x = *from, .multiplier = {}, .outliers = {}, .out = to->view(), .outlier_values = {}});
          }
          EXPECT_TRUE(codes.same_bytes(expected)) << op << shape.to_string();
          EXPECT_TRUE(codes_second.same_bytes(expected_second)) << op << shape.to_string();
          EXPECT_TRUE(in.x.same_bytes(in_apart.x)) << op;
        }
      }
    }
  }
}

TEST(CodedNorm, codes_of_a_given_scale_equal_the_norm_and_then_quantize_bit_for_bit) {
  TestContext context;
  constexpr float kDequantScale = 0.009f;  // some values of E4M3 saturate, many of int8
  const TestTensor dequant_scale = one_value(kDequantScale), quant_scale = one_value(1.0f / kDequantScale);
  for (const NormShape& s : kShapes) {
    for (const DType format : {DType::kE4M3, DType::kI8}) {
      const NormInputs in(s, kBF16, kBF16), in_apart(s, kBF16, kBF16);
      const Shape shape = in.x.view().shape();
      const TestTensor plain(kBF16, shape), given(format, shape), expected(format, shape);
      const TestCodes measured(format, shape), expected_measured(format, shape);
      const auto args_of = [](const NormInputs& from, const TensorView& out, const TensorView& scale) {
        return GateResidualNormArgs{.x = from.x,
                                    .y = from.y,
                                    .gate = from.gate,
                                    .shift = from.shift,
                                    .scale = from.scale,
                                    .out = out,
                                    .out_quant_scale = scale};
      };
      GateResidualNormArgs args = args_of(in, given, quant_scale);
      args.second = {.shift = in.shift, .scale = in.scale, .out = measured.codes, .dequant_scale = measured.scales};
      gate_residual_norm(context.get(), args);
      gate_residual_norm(context.with_row("gate_residual_norm", "reference"), args_of(in_apart, plain, {}));
      quantize(context.get(), {.x = plain, .out = {expected, dequant_scale, ScaleGrain::kTensor}});
      quantize(context.get(), {.x = plain, .out = expected_measured.view()});
      EXPECT_TRUE(given.same_bytes(expected)) << shape.to_string() << dtype_name(format);
      EXPECT_TRUE(measured.same_bytes(expected_measured)) << shape.to_string() << dtype_name(format);
    }
  }
}

TEST(CodedNorm, one_output_may_be_codes_and_the_other_not) {
  TestContext context;
  const NormInputs in({2, 3, 40, 0});
  const Shape shape = in.x.view().shape();
  const TestCodes codes(DType::kE4M3, shape), expected(DType::kE4M3, shape);
  const TestTensor plain(kBF16, shape), plain_expected(kBF16, shape);
  LayerNormArgs args = layer_norm_args(in, Affine::kModulation, codes.codes);
  args.out_dequant_scale = codes.scales;
  layer_norm(context.get(), args);
  args.out = plain_expected;
  args.out_dequant_scale = {};
  args.second = {.shift = in.shift, .scale = in.scale, .out = expected.codes, .dequant_scale = expected.scales};
  layer_norm(context.with_row("layer_norm", "reference"), args);
  EXPECT_TRUE(expected.same_bytes(codes));
  args.second.out = plain;
  args.second.dequant_scale = {};
  layer_norm(context.with_row("layer_norm", "reference"), args);
  EXPECT_TRUE(plain.same_bytes(plain_expected));
}

TEST(CodedNorm, codes_and_scales_come_together) {
  TestContext context;
  const NormInputs in({1, 2, 8, 0});
  const TestCodes codes(DType::kE4M3, {1, 2, 8});
  const TestTensor plain(kBF16, {1, 2, 8}), few(kF32, {1});
  LayerNormArgs args = layer_norm_args(in, Affine::kModulation, codes.codes);
  EXPECT_THROW(layer_norm(context.get(), args), CheckFailure);
  args.out_dequant_scale = few;
  EXPECT_THROW(layer_norm(context.get(), args), CheckFailure);
  args.out_dequant_scale = codes.scales;
  layer_norm(context.get(), args);
  args.out_quant_scale = few;  // beside measured ones
  EXPECT_THROW(layer_norm(context.get(), args), CheckFailure);
  args.out_quant_scale = {};
  args.out = plain;
  EXPECT_THROW(layer_norm(context.get(), args), CheckFailure);
  args.out_dequant_scale = {};
  args.out_quant_scale = few;
  EXPECT_THROW(layer_norm(context.get(), args), CheckFailure);
}

TEST(RmsNorm, every_row_equals_the_reference) {
  TestContext context;
  for (const NormShape& s : kShapes) {
    for (const DType dtype : {kF32, kBF16}) {
      const NormInputs in(s);
      const TestTensor expected(dtype, in.x.view().shape());
      rms_norm(context.with_row("rms_norm", "reference"), {.x = in.x, .weight = in.weight, .out = expected});
      for (const std::string_view row : context.rows(rms_norm_table())) {
        const TestTensor actual(dtype, in.x.view().shape(), s.padding);
        rms_norm(context.with_row("rms_norm", row), {.x = in.x, .weight = in.weight, .out = actual});
        EXPECT_TRUE(testing::expect_close(actual, expected, op_tolerance(dtype))) << row;
      }
    }
  }
}

struct HeadShape {
  std::int64_t batch, heads, tokens, head_width, offset, joint;  // written at `offset` of `joint` tokens
};
constexpr HeadShape kHeadShapes[] = {
    {1, 1, 1, 64, 0, 1}, {2, 3, 5, 64, 0, 9}, {2, 3, 4, 64, 5, 9}, {3, 2, 7, 20, 1, 8}};

TEST(QkvSplitNorm, factors_are_applied_before_the_one_rounding_and_f16_saturates) {
  TestContext context;
  const TestTensor qkv = TestTensor::random(kBF16, Shape{2, 5, 3 * 2 * 64}, 1, 4.0f);
  static_cast<BFloat16*>(qkv.view().data())[2 * 2 * 64 + 3] = to_bfloat16(-1e6f);  // of v
  const TestTensor weight = TestTensor::random(kF32, Shape{64}, 2, 1.0f, 1.0f);
  const auto run = [&](DType dtype, DType v_dtype, float q_factor, float k_factor) {
    const Shape shape{2, 2, 5, 64};
    std::vector<TestTensor> out{{dtype, shape}, {dtype, shape}, {v_dtype, shape}};
    qkv_split_norm(context.get(), {.qkv = qkv,
                                   .q_weight = weight,
                                   .k_weight = weight,
                                   .q_factor = q_factor,
                                   .k_factor = k_factor,
                                   .q = out[0],
                                   .k = out[1],
                                   .v = out[2]});
    return out;
  };
  const auto plain = run(kF32, kF32, 1.0f, 1.0f);
  for (const DType dtype : {DType::kF16, DType::kE4M3}) {
    // Powers of two, so that factor and rounding can be told apart exactly.
    const auto written = run(dtype, DType::kF16, 0.5f, 4.0f);
    const float factors[] = {0.5f, 4.0f, 1.0f};
    for (int part = 0; part < 3; ++part) {
      const DType stored = part == 2 ? DType::kF16 : dtype;
      TestTensor expected(stored, plain[part].view().shape());
      for (std::int64_t b = 0; b < 2; ++b)
        for (std::int64_t h = 0; h < 2; ++h)
          for (std::int64_t t = 0; t < 5; ++t)
            for (std::int64_t i = 0; i < 64; ++i) {
              const float value = Row(plain[part], {b, h, t})[i] * factors[part];
              Row(expected, {b, h, t}).set(i, stored == DType::kF16 ? std::clamp(value, -65504.0f, 65504.0f) : value);
            }
      EXPECT_TRUE(same_bits(written[part], expected)) << dtype_name(dtype) << " part " << part;
    }
    EXPECT_EQ(Row(written[2], {0, 0, 0})[3], -65504.0f);
  }
}

TEST(QkvSplitNorm, every_row_equals_the_reference_and_writes_only_its_tokens) {
  TestContext context;
  for (const HeadShape& s : kHeadShapes) {
    for (const bool with_q : {true, false}) {
      for (const bool with_norm : {true, false}) {
        for (const auto& [in_dtype, out_dtype] :
             {std::pair(kF32, kF32), std::pair(kF32, kBF16), std::pair(kBF16, kBF16)}) {
          const TestTensor qkv =
              TestTensor::random(in_dtype, {s.batch, s.tokens, (with_q ? 3 : 2) * s.heads * s.head_width}, 1, 4.0f);
          const TestTensor weight = TestTensor::random(kF32, {s.head_width}, 2, 1.0f, 1.0f);
          struct Joint {
            TestTensor q, k, v;
          };
          const auto run = [&](std::string_view row) {
            const Shape shape{s.batch, s.heads, s.joint, s.head_width};
            Joint joint{{out_dtype, shape}, {out_dtype, shape}, {out_dtype, shape}};
            QkvSplitNormArgs args;
            args.qkv = qkv;
            if (with_norm) args.q_weight = args.k_weight = weight;
            if (with_q) args.q = joint.q.view().slice(2, s.offset, s.tokens);
            args.k = joint.k.view().slice(2, s.offset, s.tokens);
            args.v = joint.v.view().slice(2, s.offset, s.tokens);
            qkv_split_norm(context.with_row("qkv_split_norm", row), args);
            return joint;
          };
          const Joint expected = run("reference");
          for (const std::string_view row : context.rows(qkv_split_norm_table())) {
            const Joint actual = run(row);
            const auto compare = [&](const TestTensor& a, const TestTensor& e) {
              const TensorView written = a.view().slice(2, s.offset, s.tokens);
              EXPECT_TRUE(
                  testing::expect_close(written, e.view().slice(2, s.offset, s.tokens), op_tolerance(out_dtype)))
                  << row;
              // The rest of the joint sequence belongs to somebody else: still poison.
              const TensorView before = a.view().slice(2, 0, s.offset);
              const TestTensor poison(out_dtype, before.shape());
              if (s.offset > 0) {
                EXPECT_TRUE(same_bits(before, poison)) << row;
              }
            };
            if (with_q) compare(actual.q, expected.q);
            compare(actual.k, expected.k);
            compare(actual.v, expected.v);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace octavo::ops
