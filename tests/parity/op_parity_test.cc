// Every row of the row-wise ops against torch, diffusers and transformers (tools/reference/record_ops.py). Parameters
// that are not tensors are those of the recorder.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "ops/activation/activation.h"
#include "ops/cast/cast.h"
#include "ops/embedding/embedding.h"
#include "ops/matmul/matmul.h"
#include "ops/norm/norm.h"
#include "ops/op_test.h"
#include "ops/patch/patch.h"
#include "ops/sample/sample.h"
#include "tests/parity/fixture.h"

namespace octavo::parity {
namespace {

using ops::Activation;
using ops::TestContext;
using ops::TestTensor;
using testing::expect_close;
using testing::kExact;
using testing::kOpF32;

constexpr DType kF32 = DType::kF32;

/// A writable copy, for what an op updates in place.
TestTensor copy_of(const TensorView& view) {
  TestTensor copy(view.dtype(), view.shape());
  std::memcpy(copy.view().data(), view.data(), view.byte_count());
  return copy;
}

TEST(NormParity, layer_norms_equal_torch) {
  const Fixture f("ops/norm.safetensors");
  TestContext context;
  for (const std::string_view row : context.rows(ops::layer_norm_table())) {
    const TestTensor out(kF32, f["layer_norm_plain.out"].shape());
    ops::layer_norm(context.with_row("layer_norm", row), {.x = f["layer_norm_affine.x"],
                                                          .weight = f["layer_norm_affine.weight"],
                                                          .bias = f["layer_norm_affine.bias"],
                                                          .eps = 1e-5f,
                                                          .out = out});
    EXPECT_TRUE(expect_close(out, f["layer_norm_affine.out"], kOpF32)) << row;
    ops::layer_norm(context.with_row("layer_norm", row), {.x = f["layer_norm_plain.x"], .eps = 1e-6f, .out = out});
    EXPECT_TRUE(expect_close(out, f["layer_norm_plain.out"], kOpF32)) << row;
    ops::layer_norm(context.with_row("layer_norm", row), {.x = f["layer_norm_modulated.x"],
                                                          .shift = f["layer_norm_modulated.shift"],
                                                          .scale = f["layer_norm_modulated.scale"],
                                                          .eps = 1e-6f,
                                                          .out = out});
    EXPECT_TRUE(expect_close(out, f["layer_norm_modulated.out"], kOpF32)) << row;
  }
}

TEST(NormParity, gate_residual_and_norm_equal_diffusers_block_seam) {
  const Fixture f("ops/norm.safetensors");
  TestContext context;
  for (const std::string_view row : context.rows(ops::gate_residual_norm_table())) {
    const TestTensor x = copy_of(f["gate_residual_norm.x"]);
    const TestTensor out(kF32, f["gate_residual_norm.out"].shape());
    ops::gate_residual_norm(context.with_row("gate_residual_norm", row), {.x = x,
                                                                          .y = f["gate_residual_norm.y"],
                                                                          .gate = f["gate_residual_norm.gate"],
                                                                          .shift = f["gate_residual_norm.shift"],
                                                                          .scale = f["gate_residual_norm.scale"],
                                                                          .eps = 1e-6f,
                                                                          .out = out});
    EXPECT_TRUE(expect_close(x, f["gate_residual_norm.x_out"], kOpF32)) << row;
    EXPECT_TRUE(expect_close(out, f["gate_residual_norm.out"], kOpF32)) << row;
  }
}

TEST(NormParity, rms_norm_equals_t5) {
  const Fixture f("ops/norm.safetensors");
  TestContext context;
  for (const std::string_view row : context.rows(ops::rms_norm_table())) {
    const TestTensor out(kF32, f["rms_norm.out"].shape());
    ops::rms_norm(context.with_row("rms_norm", row),
                  {.x = f["rms_norm.x"], .weight = f["rms_norm.weight"], .eps = 1e-6f, .out = out});
    EXPECT_TRUE(expect_close(out, f["rms_norm.out"], kOpF32)) << row;
  }
}

TEST(NormParity, split_and_norm_of_heads_equal_diffusers) {
  const Fixture f("ops/norm.safetensors");
  TestContext context;
  for (const std::string_view row : context.rows(ops::qkv_split_norm_table())) {
    const Shape shape = f["qkv_split_norm.q"].shape();
    const TestTensor q(kF32, shape), k(kF32, shape), v(kF32, shape);
    ops::qkv_split_norm(context.with_row("qkv_split_norm", row), {.qkv = f["qkv_split_norm.qkv"],
                                                                  .q_weight = f["qkv_split_norm.q_weight"],
                                                                  .k_weight = f["qkv_split_norm.k_weight"],
                                                                  .eps = 1e-6f,
                                                                  .q = q,
                                                                  .k = k,
                                                                  .v = v});
    EXPECT_TRUE(expect_close(q, f["qkv_split_norm.q"], kOpF32)) << row;
    EXPECT_TRUE(expect_close(k, f["qkv_split_norm.k"], kOpF32)) << row;
    EXPECT_TRUE(expect_close(v, f["qkv_split_norm.v"], kExact)) << row;
  }
}

TEST(ActivationParity, all_equal_torch_and_transformers) {
  const Fixture f("ops/activation.safetensors");
  TestContext context;
  const TensorView x = f["activation.x"];
  struct Case {
    Activation activation;
    const char* name;
    bool gated;
  };
  for (const Case& c :
       {Case{Activation::kSilu, "silu", false}, Case{Activation::kGeluTanh, "gelu_tanh", false},
        Case{Activation::kGeluErf, "gelu_erf", false}, Case{Activation::kQuickGelu, "quick_gelu", false},
        Case{Activation::kGeluTanh, "gated", true}}) {
    for (const std::string_view row : context.rows(ops::activation_table())) {
      const TestTensor out(kF32, x.shape());
      ops::activation(context.with_row("activation", row),
                      {.activation = c.activation,
                       .x = x,
                       .multiplier = c.gated ? f["activation.multiplier"] : TensorView(),
                       .out = out});
      EXPECT_TRUE(expect_close(out, f[std::string("activation.") + c.name], kOpF32)) << row << " " << c.name;
    }
  }
}

TEST(EmbeddingParity, timesteps_equal_diffusers) {
  const Fixture f("ops/embedding.safetensors");
  TestContext context;
  for (const std::string_view row : context.rows(ops::timestep_embedding_table())) {
    const TestTensor out(kF32, f["timestep.out"].shape());
    ops::timestep_embedding(context.with_row("timestep_embedding", row),
                            {.timesteps = f["timestep.timesteps"], .out = out});
    EXPECT_TRUE(expect_close(out, f["timestep.out"], kOpF32)) << row;
  }
}

TEST(EmbeddingParity, relative_bias_and_every_bucket_equal_t5) {
  const Fixture f("ops/embedding.safetensors");
  TestContext context;
  for (const std::string_view row : context.rows(ops::relative_bias_table())) {
    const TestTensor out(kF32, f["relative_bias.out"].shape());
    ops::relative_bias(context.with_row("relative_bias", row), {.table = f["relative_bias.table"], .out = out});
    EXPECT_TRUE(expect_close(out, f["relative_bias.out"], kExact)) << row;

    // A table that holds each bucket's number shows which bucket every distance up to 600 falls into.
    const TestTensor numbers(kF32, {32, 1});
    for (int i = 0; i < 32; ++i) numbers.view().f32()[i] = static_cast<float>(i);
    const TestTensor buckets(kF32, {1, 601, 601});
    ops::relative_bias(context.with_row("relative_bias", row), {.table = numbers, .out = buckets});
    const auto* distances = f["relative_bucket.distances"].as<std::int32_t>();
    const auto* expected = f["relative_bucket.out"].as<std::int32_t>();
    for (std::int64_t i = 0; i < f["relative_bucket.out"].element_count(); ++i) {
      const std::int64_t query = distances[i] < 0 ? -distances[i] : 0;
      const float bucket = ops::Row(buckets, {0, query})[query + distances[i]];
      ASSERT_EQ(bucket, static_cast<float>(expected[i])) << row << " distance " << distances[i];
    }
  }
}

TEST(EmbeddingParity, tokens_and_positions_equal_clip) {
  const Fixture f("ops/embedding.safetensors");
  TestContext context;
  for (const std::string_view row : context.rows(ops::embedding_table())) {
    const TestTensor out(kF32, f["embedding.out"].shape());
    ops::embedding(
        context.with_row("embedding", row),
        {.ids = f["embedding.ids"], .table = f["embedding.table"], .positions = f["embedding.positions"], .out = out});
    EXPECT_TRUE(expect_close(out, f["embedding.out"], kExact)) << row;
  }
}

TEST(PatchParity, patches_product_and_positions_equal_diffusers_patch_embed) {
  const Fixture f("ops/patch.safetensors");
  TestContext context;
  const TensorView latents = f["patch_embed.latents"];
  const std::int64_t tokens = latents.dim(2) / 2 * (latents.dim(3) / 2);
  for (const std::string_view row : context.rows(ops::patchify_table())) {
    const TestTensor rows(kF32, {latents.dim(0), tokens, 4 * latents.dim(1)});
    ops::patchify(context.with_row("patchify", row), {.latents = latents, .out = rows});
    const TestTensor x(kF32, f["patch_embed.out"].shape());
    ops::matmul(context.with_row("matmul", "reference"), {.x = rows,
                                                          .weight = {.plain = f["patch_embed.weight"]},
                                                          .epilogue = {.bias = f["patch_embed.bias"]},
                                                          .out = x});
    ops::add_positions(context.with_row("add_positions", row), {.x = x,
                                                                .table = f["patch_embed.table"],
                                                                .rows = static_cast<int>(latents.dim(2) / 2),
                                                                .columns = static_cast<int>(latents.dim(3) / 2)});
    EXPECT_TRUE(expect_close(x, f["patch_embed.out"], kOpF32)) << row;
  }
}

TEST(PatchParity, unpatchify_equals_diffusers_einsum) {
  const Fixture f("ops/patch.safetensors");
  TestContext context;
  for (const std::string_view row : context.rows(ops::unpatchify_table())) {
    const TestTensor out(kF32, f["unpatchify.out"].shape());
    ops::unpatchify(context.with_row("unpatchify", row), {.tokens = f["unpatchify.tokens"], .out = out});
    EXPECT_TRUE(expect_close(out, f["unpatchify.out"], kExact)) << row;
  }
}

TEST(SampleParity, sums_and_guidance_equal_torch_bit_for_bit) {
  const Fixture f("ops/sample.safetensors");
  TestContext context;
  for (const std::string_view row : context.rows(ops::lincomb_table())) {
    const TestTensor out(kF32, f["lincomb.out"].shape());
    ops::LincombArgs args;
    args.terms[0] = {1.0f, f["lincomb.x"]};
    args.terms[1] = {f["lincomb.dt"].f32()[0], f["lincomb.v"]};
    args.term_count = 2;
    args.out = out;
    ops::lincomb(context.with_row("lincomb", row), args);
    EXPECT_TRUE(expect_close(out, f["lincomb.out"], kExact)) << row;
  }
  for (const std::string_view row : context.rows(ops::guidance_table())) {
    const TestTensor out(kF32, f["guidance.out"].shape());
    ops::guidance(context.with_row("guidance", row),
                  {.uncond = f["guidance.uncond"], .cond = f["guidance.cond"], .guidance_scale = 4.5f, .out = out});
    EXPECT_TRUE(expect_close(out, f["guidance.out"], kExact)) << row;
  }
}

TEST(SampleParity, latents_and_pixels_equal_diffusers) {
  const Fixture f("ops/sample.safetensors");
  TestContext context;
  for (const std::string_view row : context.rows(ops::latents_to_decoder_table())) {
    const TestTensor out(kF32, f["latents_to_decoder.out"].shape());
    ops::latents_to_decoder(
        context.with_row("latents_to_decoder", row),
        {.latents = f["latents_to_decoder.latents"], .scaling_factor = 1.5305f, .shift_factor = 0.0609f, .out = out});
    EXPECT_TRUE(expect_close(out, f["latents_to_decoder.out"], kExact)) << row;
  }
  for (const std::string_view row : context.rows(ops::to_pixels_table())) {
    const TestTensor out(DType::kI8, f["to_pixels.out"].shape());
    ops::to_pixels(context.with_row("to_pixels", row), {.x = f["to_pixels.x"], .out = out});
    EXPECT_TRUE(expect_close(out, f["to_pixels.out"], kExact)) << row;
  }
}

TEST(CastParity, roundings_equal_torch_bit_for_bit) {
  const Fixture f("ops/sample.safetensors");
  TestContext context;
  for (const std::string_view row : context.rows(ops::cast_table())) {
    for (const auto& [dtype, name] : {std::pair(DType::kBF16, "cast.bf16"), std::pair(DType::kF16, "cast.f16")}) {
      const TestTensor out(dtype, f["cast.x"].shape());
      ops::cast(context.with_row("cast", row), {.x = f["cast.x"], .out = out});
      EXPECT_TRUE(expect_close(out, f[name], kExact)) << row << " " << name;
    }
  }
}

}  // namespace
}  // namespace octavo::parity
