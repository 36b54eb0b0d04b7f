// Every row of the autoencoder's convolutions and group norm against torch and diffusers
// (tools/reference/record_ops.py). Parameters that are not tensors are those of the recorder.
#include <gtest/gtest.h>

#include <string>

#include "ops/conv2d/conv2d.h"
#include "ops/group_norm/group_norm.h"
#include "ops/op_test.h"
#include "tests/parity/fixture.h"

namespace octavo::parity {
namespace {

using ops::TestContext;
using ops::TestTensor;
using testing::expect_close;
using testing::kOpF32;

constexpr DType kF32 = DType::kF32;

TEST(ConvParity, autoencoder_convolutions_equal_torch_and_diffusers) {
  const Fixture f("ops/conv2d.safetensors");
  struct Case {
    const char* name;
    const char* result;
    ops::Conv2dArgs args;
  };
  const Case cases[] = {
      {"conv_3x3", "out", {}},
      {"conv_3x3", "with_residual", {.residual = f["conv_3x3.residual"]}},
      {"conv_1x1", "out", {.pad_before = 0, .pad_after = 0}},
      {"conv_upsample", "out", {.upsample = true}},
      {"conv_downsample", "out", {.stride = 2, .pad_before = 0, .pad_after = 1}},
  };
  TestContext context;
  for (const Case& c : cases) {
    const std::string name = c.name;
    const TensorView expected = f[name + "." + c.result];
    for (const bool packed : {false, true}) {
      ops::Conv2dArgs args = c.args;
      args.x = f[name + ".x"];
      args.bias = f[name + ".bias"];
      args.weight.plain = f[name + ".weight"];
      if (packed) args.weight = ops::pack_conv_weight(context.device(), args.weight.plain, kF32).value();
      const TestTensor out(kF32, expected.shape());
      args.out = out;
      for (const std::string_view row : context.rows_for(ops::conv2d_table(), args)) {
        testing::poison(out);
        ops::conv2d(context.with_row("conv2d", row), args);
        EXPECT_TRUE(expect_close(out, expected, kOpF32)) << row << " " << name << (packed ? " packed" : "");
      }
    }
  }
}

TEST(GroupNormParity, with_and_without_silu_equal_torch) {
  const Fixture f("ops/norm.safetensors");
  TestContext context;
  for (const std::string_view row : context.rows(ops::group_norm_table())) {
    for (const bool silu : {false, true}) {
      const TensorView expected = f[silu ? "group_norm.out_silu" : "group_norm.out"];
      const TestTensor out(kF32, expected.shape());
      ops::group_norm(context.with_row("group_norm", row), {.x = f["group_norm.x"],
                                                            .weight = f["group_norm.weight"],
                                                            .bias = f["group_norm.bias"],
                                                            .groups = 8,
                                                            .eps = 1e-6f,
                                                            .silu = silu,
                                                            .out = out});
      EXPECT_TRUE(expect_close(out, expected, kOpF32)) << row;
    }
  }
}

}  // namespace
}  // namespace octavo::parity
