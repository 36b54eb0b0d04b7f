// Every row of products and attention against torch (tools/reference/record_ops.py). Parameters that are not tensors
// are those of the recorder.
#include <gtest/gtest.h>

#include <string>

#include "ops/attention/attention.h"
#include "ops/matmul/matmul.h"
#include "ops/op_test.h"
#include "tests/parity/fixture.h"

namespace octavo::parity {
namespace {

using ops::Activation;
using ops::TestContext;
using ops::TestTensor;
using testing::expect_close;
using testing::kOpF32;

constexpr DType kF32 = DType::kF32;

/// Calls body(weight, packed or not): kernels may take another way with a packed weight.
template <typename Body>
void with_and_without_packing(TestContext& context, const TensorView& plain, const Body& body) {
  body(ops::MatmulWeight{.plain = plain});
  body(ops::pack_matmul_weight(context.device(), plain, kF32).value());
}

TEST(MatmulParity, products_and_epilogues_equal_torch) {
  const Fixture f("ops/product.safetensors");
  struct Case {
    const char* name;
    ops::Epilogue epilogue;
  };
  const TensorView bias = f["matmul.bias"];
  const Case cases[] = {
      {"matmul.plain", {}},
      {"matmul.biased", {.bias = bias}},
      {"matmul.gelu_tanh", {.bias = bias, .activation = Activation::kGeluTanh}},
      {"matmul.gated", {.bias = bias, .residual = f["matmul.residual"], .gate = f["matmul.gate"]}},
  };
  TestContext context;
  for (const Case& c : cases) {
    with_and_without_packing(context, f["matmul.weight"], [&](const ops::MatmulWeight& weight) {
      const TestTensor out(kF32, f[c.name].shape());
      const ops::MatmulArgs args{.x = f["matmul.x"], .weight = weight, .epilogue = c.epilogue, .out = out};
      for (const std::string_view row : context.rows_for(ops::matmul_table(), args)) {
        testing::poison(out);
        ops::matmul(context.with_row("matmul", row), args);
        EXPECT_TRUE(expect_close(out, f[c.name], kOpF32)) << row << " " << c.name;
      }
    });
  }
}

TEST(MatmulParity, bf16_weights_are_widened_exactly) {
  const Fixture f("ops/product.safetensors");
  TestContext context;
  with_and_without_packing(context, f["matmul_bf16_weight.weight"], [&](const ops::MatmulWeight& weight) {
    const TestTensor out(kF32, f["matmul_bf16_weight.out"].shape());
    const ops::MatmulArgs args{.x = f["matmul_bf16_weight.x"], .weight = weight, .out = out};
    for (const std::string_view row : context.rows_for(ops::matmul_table(), args)) {
      testing::poison(out);
      ops::matmul(context.with_row("matmul", row), args);
      EXPECT_TRUE(expect_close(out, f["matmul_bf16_weight.out"], kOpF32)) << row;
    }
  });
}

TEST(AttentionParity, plain_causal_and_biased_equal_torch) {
  const Fixture f("ops/product.safetensors");
  struct Case {
    const char* name;
    float score_factor;
    bool causal;
    bool biased;
  };
  TestContext context;
  for (const Case& c :
       {Case{"attention", 0.125f, false, false}, Case{"attention_causal", 0.17677669529663687f, true, false},
        Case{"attention_bias", 1.0f, false, true}}) {
    const std::string name = c.name;
    const TestTensor out(kF32, f[name + ".out"].shape());
    const ops::AttentionArgs args{.q = f[name + ".q"],
                                  .k = f[name + ".k"],
                                  .v = f[name + ".v"],
                                  .bias = c.biased ? f[name + ".bias"] : TensorView(),
                                  .score_factor = c.score_factor,
                                  .causal = c.causal,
                                  .out = out};
    for (const std::string_view row : context.rows_for(ops::attention_table(), args)) {
      testing::poison(out);
      ops::attention(context.with_row("attention", row), args);
      EXPECT_TRUE(expect_close(out, f[name + ".out"], kOpF32)) << row << " " << name;
    }
  }
}

}  // namespace
}  // namespace octavo::parity
