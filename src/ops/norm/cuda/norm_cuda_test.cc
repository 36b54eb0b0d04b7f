// The norms' CUDA rows against the CPU's reference rows, and what they write as codes against norm and quantize apart.
#include "ops/cuda/gpu_op_test.h"
#include "ops/norm/norm.h"
#include "ops/quantize/quantize.h"

namespace octavo::ops {
namespace {

constexpr DType kF32 = DType::kF32;
constexpr DType kBF16 = DType::kBF16;

struct NormShape {
  std::int64_t batch, tokens, width, padding;
};
// Rows of whole vectors and not, padded so that they begin where vectors may and may not; the widths of the models; one
// token, many, more vectors than a warp, and the widest a block holds.
constexpr NormShape kShapes[] = {{1, 1, 1, 0},     {1, 3, 7, 2},    {2, 2, 16, 0},    {3, 5, 33, 1},   {2, 9, 64, 4},
                                 {2, 3, 192, 8},   {1, 2, 100, 0},  {2, 300, 320, 0}, {1, 77, 768, 0}, {2, 5, 1536, 8},
                                 {2, 37, 2432, 0}, {2, 3, 2432, 3}, {1, 5, 4096, 0},  {1, 2, 8192, 0}};

/// Inputs of a norm, the same on both devices.
struct NormInputs {
  NormInputs(const NormShape& s, DType x_dtype, DType y_dtype)
      : x(TestTensor::random(x_dtype, {s.batch, s.tokens, s.width}, 1, 3.0f, 2.0f, s.padding)),
        y(TestTensor::random(y_dtype, {s.batch, s.tokens, s.width}, 2, 1.0f, 0.0f, s.padding)),
        weight(TestTensor::random(kF32, {s.width}, 3)),
        bias(TestTensor::random(kF32, {s.width}, 4)),
        shift(TestTensor::random(kF32, {s.batch, s.width}, 5, 1.0f, 0.0f, s.padding)),
        scale(TestTensor::random(kF32, {s.batch, s.width}, 6, 1.0f, 0.0f, s.padding)),
        gate(TestTensor::random(kF32, {s.batch, s.width}, 7, 1.0f, 0.0f, s.padding)),
        second_shift(TestTensor::random(kF32, {s.batch, s.width}, 8, 1.0f, 0.0f, s.padding)),
        second_scale(TestTensor::random(kF32, {s.batch, s.width}, 9, 1.0f, 0.0f, s.padding)) {}
  TestTensor x, y, weight, bias, shift, scale, gate, second_shift, second_scale;
};
struct GpuNormInputs {
  GpuNormInputs(GpuContext& gpu, const NormInputs& in)
      : x(gpu, in.x),
        y(gpu, in.y),
        weight(gpu, in.weight),
        bias(gpu, in.bias),
        shift(gpu, in.shift),
        scale(gpu, in.scale),
        gate(gpu, in.gate),
        second_shift(gpu, in.second_shift),
        second_scale(gpu, in.second_scale) {}
  GpuTensor x, y, weight, bias, shift, scale, gate, second_shift, second_scale;
};

enum class Form { kPlain, kWeights, kModulation, kTwice };

template <typename Inputs>
LayerNormArgs layer_norm_args(const Inputs& in, Form form, const TensorView& out, const TensorView& second) {
  LayerNormArgs args;
  args.x = in.x;
  if (form == Form::kWeights) {
    args.weight = in.weight;
    args.bias = in.bias;
  }
  if (form == Form::kModulation || form == Form::kTwice) {
    args.shift = in.shift;
    args.scale = in.scale;
  }
  args.out = out;
  if (form == Form::kTwice) {
    args.second = {.shift = in.second_shift, .scale = in.second_scale, .out = second, .dequant_scale = {}};
  }
  return args;
}

template <typename Inputs>
GateResidualNormArgs gate_args(const Inputs& in, Form form, const TensorView& out, const TensorView& second) {
  GateResidualNormArgs args;
  args.x = in.x;
  args.y = in.y;
  args.gate = in.gate;
  if (form == Form::kPlain) return args;  // the residual alone
  args.shift = in.shift;
  args.scale = in.scale;
  args.out = out;
  if (form == Form::kTwice) {
    args.second = {.shift = in.second_shift, .scale = in.second_scale, .out = second, .dequant_scale = {}};
  }
  return args;
}

TEST(NormCuda, layer_norm_equals_the_reference) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  for (const NormShape& s : kShapes) {
    for (const Form form : {Form::kPlain, Form::kWeights, Form::kModulation, Form::kTwice}) {
      if (s.width == 1 && form == Form::kPlain) continue;  // all zero: nothing to compare with
      for (const DType x_dtype : {kF32, kBF16}) {
        for (const DType dtype : {kF32, kBF16}) {
          const NormInputs in(s, x_dtype, kF32);
          const GpuNormInputs there(gpu, in);
          const Shape shape = in.x.view().shape();
          const TestTensor out(dtype, shape, s.padding), second(dtype, shape, s.padding);
          const GpuTensor gpu_out(gpu, out), gpu_second(gpu, second);
          layer_norm(cpu.with_row("layer_norm", "reference"), layer_norm_args(in, form, out, second));
          layer_norm(gpu.get(), layer_norm_args(there, form, gpu_out, gpu_second));
          const std::string name = fmt::format("{} form {} {} {}", shape.to_string(), static_cast<int>(form),
                                               dtype_name(x_dtype), dtype_name(dtype));
          EXPECT_TRUE(testing::expect_close(gpu_out.download(), out, op_tolerance(dtype))) << name;
          if (form == Form::kTwice) {
            EXPECT_TRUE(testing::expect_close(gpu_second.download(), second, op_tolerance(dtype))) << name;
          }
        }
      }
    }
  }
}

TEST(NormCuda, gate_residual_norm_equals_the_reference) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  for (const NormShape& s : kShapes) {
    for (const Form form : {Form::kPlain, Form::kModulation, Form::kTwice}) {
      for (const DType x_dtype : {kF32, kBF16}) {
        for (const DType dtype : {kF32, kBF16}) {  // of y and out
          const NormInputs in(s, x_dtype, dtype);
          const GpuNormInputs there(gpu, in);
          const Shape shape = in.x.view().shape();
          const TestTensor out(dtype, shape, s.padding), second(dtype, shape, s.padding);
          const GpuTensor gpu_out(gpu, out), gpu_second(gpu, second);
          gate_residual_norm(cpu.with_row("gate_residual_norm", "reference"), gate_args(in, form, out, second));
          gate_residual_norm(gpu.get(), gate_args(there, form, gpu_out, gpu_second));
          const std::string name = fmt::format("{} form {} {} {}", shape.to_string(), static_cast<int>(form),
                                               dtype_name(x_dtype), dtype_name(dtype));
          // One rounding of x may fall to the other side; what is normed follows it.
          const testing::Tolerance& close = x_dtype == kBF16 ? testing::kOpBf16Rounded : op_tolerance(dtype);
          EXPECT_TRUE(testing::expect_close(there.x.download(), in.x, op_tolerance(x_dtype))) << name;
          if (form == Form::kPlain || s.width == 1) continue;  // a row of one norms to the shift, rounded or not
          EXPECT_TRUE(testing::expect_close(gpu_out.download(), out, close)) << name;
          if (form == Form::kTwice) {
            EXPECT_TRUE(testing::expect_close(gpu_second.download(), second, close)) << name;
          }
        }
      }
    }
  }
}

/// Codes on the GPU: equal to the norm in bf16 and quantize there, and to the CPU's quantize of that norm.
TEST(NormCuda, coded_outputs_equal_the_norm_and_then_quantize_bit_for_bit) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  for (const NormShape& s : kShapes) {
    for (const DType x_dtype : {kF32, kBF16}) {
      for (const DType format : {DType::kE4M3, DType::kI8}) {
        for (const bool gated : {false, true}) {
          const NormInputs in(s, x_dtype, kBF16);
          const GpuNormInputs fused(gpu, in), apart(gpu, in);
          const Shape shape = in.x.view().shape();
          const TestTensor poison(kBF16, shape);
          const TestCodes codes(format, shape);
          const GpuTensor plain(gpu, poison), plain_second(gpu, poison);
          const GpuTensor out(gpu, codes.codes), out_scale(gpu, codes.scales);
          const GpuTensor second(gpu, codes.codes), second_scale(gpu, codes.scales);
          if (gated) {
            GateResidualNormArgs args = gate_args(fused, Form::kTwice, out, second);
            args.out_dequant_scale = out_scale;
            args.second.dequant_scale = second_scale;
            gate_residual_norm(gpu.get(), args);
            gate_residual_norm(gpu.get(), gate_args(apart, Form::kTwice, plain, plain_second));
          } else {
            LayerNormArgs args = layer_norm_args(fused, Form::kTwice, out, second);
            args.out_dequant_scale = out_scale;
            args.second.dequant_scale = second_scale;
            layer_norm(gpu.get(), args);
            layer_norm(gpu.get(), layer_norm_args(apart, Form::kTwice, plain, plain_second));
          }
          const std::string name =
              fmt::format("{} {} {} gated {}", shape.to_string(), dtype_name(x_dtype), dtype_name(format), gated);
          EXPECT_TRUE(fused.x.download().same_bytes(apart.x.download())) << name;
          const auto compare = [&](const GpuTensor& normed, const GpuTensor& got, const GpuTensor& got_scale) {
            const GpuTensor quantized(gpu, codes.codes), scales(gpu, codes.scales);
            quantize(gpu.get(), {.x = normed,
                                 .multiplier = {},
                                 .outliers = {},
                                 .out = {quantized, scales, ScaleGrain::kRow},
                                 .outlier_values = {}});
            EXPECT_TRUE(got.download().same_bytes(quantized.download())) << name;
            EXPECT_TRUE(got_scale.download().same_bytes(scales.download())) << name;
            const TestCodes expected(format, shape);
            const TestTensor on_host = normed.download();
            quantize(cpu.with_row("quantize", "reference"),
                     {.x = on_host, .multiplier = {}, .outliers = {}, .out = expected.view(), .outlier_values = {}});
            EXPECT_TRUE(got.download().same_bytes(expected.codes)) << name;
            EXPECT_TRUE(got_scale.download().same_bytes(expected.scales)) << name;
          };
          compare(plain, out, out_scale);
          compare(plain_second, second, second_scale);
        }
      }
    }
  }
}

TEST(NormCuda, codes_of_a_given_scale_equal_the_norm_and_then_quantize_bit_for_bit) {
  OCTAVO_REQUIRE_GPU();
  GpuContext gpu;
  constexpr float kDequantScale = 0.009f;  // some values of E4M3 saturate, many of int8
  const GpuTensor dequant_scale(gpu, one_value(kDequantScale)), quant_scale(gpu, one_value(1.0f / kDequantScale));
  for (const NormShape& s : kShapes) {
    for (const DType x_dtype : {kF32, kBF16}) {
      for (const DType format : {DType::kE4M3, DType::kI8}) {
        const NormInputs in(s, x_dtype, kBF16);
        const GpuNormInputs fused(gpu, in), apart(gpu, in);
        const Shape shape = in.x.view().shape();
        const TestCodes poison(format, shape);
        const GpuTensor plain(gpu, TestTensor(kBF16, shape)), plain_second(gpu, TestTensor(kBF16, shape)),
            given(gpu, poison.codes), measured(gpu, poison.codes), measured_scales(gpu, poison.scales),
            expected(gpu, poison.codes), expected_scales(gpu, poison.scales);
        GateResidualNormArgs args = gate_args(fused, Form::kTwice, given, measured);
        args.out_quant_scale = quant_scale;
        args.second.dequant_scale = measured_scales;
        gate_residual_norm(gpu.get(), args);
        gate_residual_norm(gpu.get(), gate_args(apart, Form::kTwice, plain, plain_second));
        const std::string name = fmt::format("{} {} {}", shape.to_string(), dtype_name(x_dtype), dtype_name(format));
        quantize(gpu.get(), {.x = plain, .out = {expected, dequant_scale, ScaleGrain::kTensor}});
        EXPECT_TRUE(given.download().same_bytes(expected.download())) << name;
        quantize(gpu.get(), {.x = plain_second, .out = {expected, expected_scales, ScaleGrain::kRow}});
        EXPECT_TRUE(measured.download().same_bytes(expected.download())) << name;
        EXPECT_TRUE(measured_scales.download().same_bytes(expected_scales.download())) << name;
      }
    }
  }
}

TEST(NormCuda, one_output_may_be_codes_and_the_other_not) {
  OCTAVO_REQUIRE_GPU();
  GpuContext gpu;
  for (const NormShape& s : {NormShape{2, 3, 2432, 0}, NormShape{2, 3, 40, 0}}) {
    const NormInputs in(s, kBF16, kBF16);
    const GpuNormInputs there(gpu, in);
    const Shape shape = in.x.view().shape();
    const TestCodes poison(DType::kE4M3, shape);
    const GpuTensor codes(gpu, poison.codes), scales(gpu, poison.scales), both_codes(gpu, poison.codes),
        both_scales(gpu, poison.scales), plain(gpu, TestTensor(kBF16, shape)), second(gpu, TestTensor(kBF16, shape));
    LayerNormArgs args = layer_norm_args(there, Form::kTwice, plain, second);
    layer_norm(gpu.get(), args);
    const TestTensor expected = second.download();
    args.out = both_codes;
    args.out_dequant_scale = both_scales;
    layer_norm(gpu.get(), args);  // codes and bf16
    args.second = {};
    args.out = codes;
    args.out_dequant_scale = scales;
    layer_norm(gpu.get(), args);  // codes alone
    EXPECT_TRUE(second.download().same_bytes(expected));
    EXPECT_TRUE(both_codes.download().same_bytes(codes.download()));
    EXPECT_TRUE(both_scales.download().same_bytes(scales.download()));
  }
}

TEST(NormCuda, a_row_does_not_depend_on_its_neighbours_and_runs_repeat) {
  OCTAVO_REQUIRE_GPU();
  GpuContext gpu;
  const NormShape s{3, 41, 2432, 0};
  const NormInputs in(s, kBF16, kBF16);
  const Shape shape = in.x.view().shape();
  const GpuTensor together(gpu, TestTensor(kBF16, shape)), alone(gpu, TestTensor(kBF16, shape)),
      unused(gpu, TestTensor(kBF16, shape));
  const GpuNormInputs once(gpu, in), again(gpu, in);
  gate_residual_norm(gpu.get(), gate_args(once, Form::kModulation, together, unused));
  for (std::int64_t b = 0; b < s.batch; ++b) {
    for (std::int64_t t = 0; t < s.tokens; ++t) {
      const auto row = [&](const TensorView& view) { return view.slice(0, b, 1).slice(1, t, 1); };
      GateResidualNormArgs args;
      args.x = row(again.x);
      args.y = row(again.y);
      args.gate = again.gate.view().slice(0, b, 1);
      args.shift = again.shift.view().slice(0, b, 1);
      args.scale = again.scale.view().slice(0, b, 1);
      args.out = row(alone);
      gate_residual_norm(gpu.get(), args);
    }
  }
  EXPECT_TRUE(alone.download().same_bytes(together.download()));
  EXPECT_TRUE(again.x.download().same_bytes(once.x.download()));
}

TEST(NormCuda, rows_far_from_zero_keep_their_variance) {
  OCTAVO_REQUIRE_GPU();
  GpuContext gpu;
  const GpuTensor x(gpu, TestTensor::random(kF32, {1, 4, 320}, 1, 0.5f, 1000.0f));
  const GpuTensor out(gpu, TestTensor(kF32, {1, 4, 320}));
  layer_norm(gpu.get(), {.x = x, .out = out});
  out.download().for_each_row([](const Row& values) {
    double squares = 0;
    for (int i = 0; i < 320; ++i) squares += values[i] * values[i];
    EXPECT_NEAR(squares / 320, 1.0, 1e-3);
  });
}

/// What is not finite is not hidden: the scale of its row says so.
TEST(NormCuda, nan_shows_in_the_scale_of_its_row_alone) {
  OCTAVO_REQUIRE_GPU();
  GpuContext gpu;
  TestTensor x = TestTensor::random(kBF16, {1, 3, 200}, 1);
  Row(x, {0, 1}).set(77, std::numeric_limits<float>::quiet_NaN());
  const TestCodes codes(DType::kE4M3, {1, 3, 200});
  const GpuTensor there(gpu, x), out(gpu, codes.codes), scales(gpu, codes.scales);
  layer_norm(gpu.get(), {.x = there, .out = out, .out_dequant_scale = scales});
  const TestTensor found = scales.download();
  EXPECT_TRUE(std::isfinite(found.view().f32()[0]));
  EXPECT_TRUE(std::isnan(found.view().f32()[1]));
  EXPECT_TRUE(std::isfinite(found.view().f32()[2]));
}

TEST(NormCuda, rms_norm_equals_the_reference) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  for (const NormShape& s : kShapes) {
    for (const DType dtype : {kF32, kBF16}) {
      const NormInputs in(s, kF32, kF32);
      const TestTensor out(dtype, in.x.view().shape(), s.padding);
      const GpuTensor x(gpu, in.x), weight(gpu, in.weight), gpu_out(gpu, out);
      rms_norm(cpu.with_row("rms_norm", "reference"), {.x = in.x, .weight = in.weight, .out = out});
      rms_norm(gpu.get(), {.x = x, .weight = weight, .out = gpu_out});
      EXPECT_TRUE(testing::expect_close(gpu_out.download(), out, op_tolerance(dtype)))
          << in.x.view().shape().to_string();
    }
  }
}

struct HeadShape {
  std::int64_t batch, heads, tokens, head_width, offset, joint;  // written at `offset` of `joint` tokens
};
// Numbers of heads that fill a thread's four and that do not, of tokens beyond a block's; the autoencoder's one wide
// head, and widths that are no vectors.
constexpr HeadShape kHeadShapes[] = {{1, 1, 1, 64, 0, 1},  {2, 3, 5, 64, 0, 9},    {2, 38, 70, 64, 5, 77},
                                     {3, 2, 7, 20, 1, 8},  {1, 5, 40, 128, 2, 44}, {2, 1, 33, 512, 0, 33},
                                     {1, 2, 3, 300, 1, 5}, {1, 20, 77, 80, 0, 77}};

TEST(NormCuda, qkv_split_norm_equals_the_reference_and_writes_only_its_tokens) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  for (const HeadShape& s : kHeadShapes) {
    for (const bool with_q : {true, false}) {
      for (const bool with_norm : {true, false}) {
        if (with_norm && s.head_width > 256) continue;  // no model has them
        for (const auto& [in_dtype, out_dtype] :
             {std::pair(kF32, kF32), std::pair(kF32, kBF16), std::pair(kBF16, kF32), std::pair(kBF16, kBF16)}) {
          const TestTensor qkv =
              TestTensor::random(in_dtype, {s.batch, s.tokens, (with_q ? 3 : 2) * s.heads * s.head_width}, 1, 4.0f);
          const TestTensor q_weight = TestTensor::random(kF32, {s.head_width}, 2, 1.0f, 1.0f);
          const TestTensor k_weight = TestTensor::random(kF32, {s.head_width}, 3, 1.0f, 1.0f);
          const Shape shape{s.batch, s.heads, s.joint, s.head_width};
          const TestTensor q(out_dtype, shape), k(out_dtype, shape), v(out_dtype, shape);
          const GpuTensor gpu_qkv(gpu, qkv), gpu_q_weight(gpu, q_weight), gpu_k_weight(gpu, k_weight);
          GpuTensor gpu_q(gpu, q), gpu_k(gpu, k), gpu_v(gpu, v);
          const auto args_of = [&](const TensorView& joined, const TensorView& qw, const TensorView& kw,
                                   const TensorView& q_out, const TensorView& k_out, const TensorView& v_out) {
            QkvSplitNormArgs args;
            args.qkv = joined;
            if (with_norm) args.k_weight = kw;
            if (with_norm && with_q) args.q_weight = qw;
            if (with_q) args.q = q_out.slice(2, s.offset, s.tokens);
            args.k = k_out.slice(2, s.offset, s.tokens);
            args.v = v_out.slice(2, s.offset, s.tokens);
            return args;
          };
          qkv_split_norm(cpu.with_row("qkv_split_norm", "reference"), args_of(qkv, q_weight, k_weight, q, k, v));
          const QkvSplitNormArgs there = args_of(gpu_qkv, gpu_q_weight, gpu_k_weight, gpu_q, gpu_k, gpu_v);
          const auto compare = [&](const GpuTensor& actual_there, const TestTensor& expected, std::string_view part) {
            const TestTensor actual = actual_there.download();
            const auto tokens = [&](const TestTensor& of, std::int64_t begin, std::int64_t count) {
              return of.view().slice(2, begin, count);
            };
            const std::string name = fmt::format("{} {} q {} norm {}", part, shape.to_string(), with_q, with_norm);
            EXPECT_TRUE(testing::expect_close(tokens(actual, s.offset, s.tokens), tokens(expected, s.offset, s.tokens),
                                              op_tolerance(out_dtype)))
                << name;
            // The rest of the joint sequence belongs to somebody else: still poison, as it is in `expected`.
            const std::int64_t after = s.offset + s.tokens;
            if (s.offset > 0) {
              EXPECT_TRUE(same_bits(tokens(actual, 0, s.offset), tokens(expected, 0, s.offset))) << name;
            }
            if (after < s.joint) {
              EXPECT_TRUE(same_bits(tokens(actual, after, s.joint - after), tokens(expected, after, s.joint - after)))
                  << name;
            }
          };
          for (const std::string_view row : gpu.rows_for(qkv_split_norm_table(), there)) {
            for (GpuTensor* out : {&gpu_q, &gpu_k, &gpu_v}) out->upload();  // poison
            qkv_split_norm(gpu.with_row("qkv_split_norm", row), there);
            if (with_q) compare(gpu_q, q, fmt::format("{} q", row));
            compare(gpu_k, k, fmt::format("{} k", row));
            compare(gpu_v, v, fmt::format("{} v", row));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace octavo::ops
