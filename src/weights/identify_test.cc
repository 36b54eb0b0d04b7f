#include "weights/identify.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace octavo::weights {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

void add(TensorMap& tensors, const std::string& name, const Shape& shape) {
  tensors[name] = {"F16", shape, 0, static_cast<std::size_t>(shape.element_count()) * 2};
}

/// The names that tell the released models apart, as the original files hold them.
TensorMap original_mmdit(const std::string& prefix, int layers, std::int64_t width, std::int64_t side, int dual,
                         bool qk_norm) {
  TensorMap tensors;
  add(tensors, prefix + "x_embedder.proj.weight", {width, 16, 2, 2});
  add(tensors, prefix + "pos_embed", {1, side * side, width});
  for (int i = 0; i < layers; ++i) {
    const std::string at = prefix + "joint_blocks." + std::to_string(i);
    add(tensors, at + ".x_block.attn.qkv.weight", {3 * width, width});
    if (qk_norm) add(tensors, at + ".context_block.attn.ln_k.weight", {64});
    if (i < dual) add(tensors, at + ".x_block.attn2.qkv.weight", {3 * width, width});
  }
  return tensors;
}

TEST(Identify, tells_the_released_models_apart_by_their_shapes) {
  const auto name = [](const TensorMap& tensors) { return identify_parts(tensors).front().description; };
  EXPECT_THAT(name(original_mmdit("model.diffusion_model.", 38, 2432, 192, 0, true)),
              AllOf(HasSubstr("3.5 Large or Large Turbo"), HasSubstr("original layout"), HasSubstr("38 layers")));
  EXPECT_THAT(name(original_mmdit("", 24, 1536, 384, 13, true)), HasSubstr("Stable Diffusion 3.5 Medium"));
  EXPECT_THAT(name(original_mmdit("", 24, 1536, 192, 0, false)), HasSubstr("Stable Diffusion 3 Medium"));
  EXPECT_THAT(name(original_mmdit("", 12, 768, 64, 0, true)), HasSubstr("no released size"));
}

TEST(Identify, splits_an_all_in_one_file) {
  TensorMap tensors = original_mmdit("model.diffusion_model.", 24, 1536, 384, 13, true);
  const std::size_t transformer_tensors = tensors.size();
  add(tensors, "first_stage_model.decoder.conv_in.weight", {512, 16, 3, 3});
  add(tensors, "first_stage_model.decoder.mid.block_1.conv1.weight", {512, 512, 3, 3});
  const std::string clip = "text_encoders.clip_g.transformer.text_model.";
  add(tensors, clip + "encoder.layers.1.mlp.fc1.weight", {5120, 1280});
  add(tensors, clip + "encoder.layers.30.mlp.fc1.weight", {5120, 1280});
  add(tensors, "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.weight", {4096, 4096});
  add(tensors, "text_encoders.t5xxl.transformer.scaled_fp8", {0});
  add(tensors, "model_ema.decay", {});
  const auto parts = identify_parts(tensors);
  ASSERT_EQ(parts.size(), 5u);
  EXPECT_EQ(parts[0].kind, "transformer");
  EXPECT_EQ(parts[0].names.size(), transformer_tensors);
  EXPECT_EQ(parts[1].kind, "vae");
  EXPECT_THAT(parts[1].description, AllOf(HasSubstr("16 latent channels"), HasSubstr("decoder alone")));
  EXPECT_EQ(parts[2].kind, "clip_g");
  EXPECT_EQ(parts[3].kind, "t5");
  EXPECT_THAT(parts[3].description, HasSubstr("scaled FP8"));
  EXPECT_EQ(parts[4].kind, "unknown");
  EXPECT_EQ(parts[4].names, std::vector<std::string>{"model_ema.decay"});
  std::size_t bytes = 0, all = 0;
  for (const auto& part : parts) bytes += part.byte_count;
  for (const auto& [name, info] : tensors) all += info.byte_count;
  EXPECT_EQ(bytes, all);
}

TEST(Identify, knows_separate_parts_and_other_peoples_models) {
  const auto kind = [](std::initializer_list<const char*> names) {
    TensorMap tensors;
    for (const char* name : names) add(tensors, name, {2, 2});
    return identify_parts(tensors).front();
  };
  EXPECT_EQ(kind({"text_model.encoder.layers.1.mlp.fc1.weight"}).kind, "clip_l");
  EXPECT_EQ(kind({"encoder.block.0.layer.0.SelfAttention.q.weight"}).kind, "t5");
  EXPECT_EQ(kind({"decoder.conv_in.weight", "decoder.mid_block.resnets.0.conv1.weight"}).kind, "vae");
  EXPECT_EQ(kind({"pos_embed.proj.weight", "transformer_blocks.0.attn.to_q.weight"}).kind, "transformer");
  EXPECT_EQ(kind({"controlnet_blocks.0.weight", "transformer_blocks.0.attn.qkv.weight"}).kind, "controlnet");
  EXPECT_EQ(kind({"transformer.transformer_blocks.3.attn.to_q.lora_A.weight"}).kind, "lora");
  EXPECT_THAT(kind({"model.diffusion_model.input_blocks.0.0.weight"}).description, HasSubstr("UNet"));
  EXPECT_THAT(kind({"double_blocks.0.img_attn.qkv.weight"}).description, HasSubstr("Flux"));
  EXPECT_EQ(kind({"something.else"}).kind, "unknown");
  EXPECT_EQ(identify_parts({}).front().names.size(), 0u);
}

TEST(Identify, odd_names_and_shapes_do_no_harm) {
  TensorMap tensors;
  add(tensors, "x_embedder.proj.weight", {});
  add(tensors, "pos_embed", {7});
  add(tensors, "joint_blocks.99999999999999999999.x", {1});
  add(tensors, "joint_blocks.", {1});
  add(tensors, "joint_blocks.-1.x", {1});
  EXPECT_THAT(identify_parts(tensors).front().description, AllOf(HasSubstr("width 0"), Not(HasSubstr("9999"))));
}

}  // namespace
}  // namespace octavo::weights
