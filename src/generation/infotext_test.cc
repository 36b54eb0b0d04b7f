#include "generation/infotext.h"

#include <gtest/gtest.h>

namespace octavo::generation {
namespace {

TEST(Describe, says_what_was_drawn_in_a1111s_words_and_order) {
  Capabilities can;
  can.model_name = "octavo-tiny";
  can.model_hash = "0123456789";
  can.samplers = {"euler"};
  can.schedules = {"normal", "simple"};
  GenerationRequest request;
  request.prompt = "a red apple";
  request.negative_prompt = "blurry";
  request.steps = 30;
  request.guidance_scale = 7;
  request.width = 256;
  request.height = 128;
  EXPECT_EQ(image::format_infotext(describe(request, 42, can, "octavo 0.1.0")),
            "a red apple\nNegative prompt: blurry\n"
            "Steps: 30, Sampler: Euler, Schedule type: Normal, CFG scale: 7.0, Seed: 42, Size: 256x128, "
            "Model hash: 0123456789, Model: octavo-tiny, Version: octavo 0.1.0");
  request.schedule = "sgm_uniform";
  can.model_hash.clear();
  const image::Infotext other = describe(request, 42, can, "");
  EXPECT_EQ(image::format_infotext(other),
            "a red apple\nNegative prompt: blurry\n"
            "Steps: 30, Sampler: Euler, Schedule type: SGM Uniform, CFG scale: 7.0, Seed: 42, Size: 256x128, "
            "Model: octavo-tiny");
}

TEST(Describe, says_how_the_prompt_was_read_where_it_is_not_the_usual) {
  GenerationRequest request;
  request.prompt = "a";
  request.prompt_syntax = "a1111";
  request.clip_skip = 1;
  EXPECT_EQ(image::format_infotext(describe(request, 1, {}, "")).find("Clip skip"), std::string::npos);
  request.clip_skip = 2;
  request.prompt_syntax = "comfyui";
  request.prompt_2 = "b, c";
  request.negative_prompt_3 = "d";
  EXPECT_NE(image::format_infotext(describe(request, 1, {}, "v"))
                .find("Clip skip: 2, Prompt syntax: comfyui, Prompt 2: \"b, c\", Negative prompt 3: d, Version: v"),
            std::string::npos);
}

TEST(Describe, names_skip_layer_guidance_when_it_is_on) {
  GenerationRequest request;
  request.skip_layers = {7, 8, 9};
  const auto text = [&] { return image::format_infotext(describe(request, 1, Capabilities{}, "octavo 0.1.0")); };
  EXPECT_EQ(text().find("Skip"), std::string::npos);
  request.skip_layer_scale = 2.8;
  EXPECT_NE(text().find(", Skip layers: \"7, 8, 9\", Skip layer scale: 2.8, Skip layer start: 0.01, "
                        "Skip layer stop: 0.2, Version: octavo 0.1.0"),
            std::string::npos)
      << text();
}

TEST(Describe, names_what_a_picture_was_made_from) {
  Capabilities can;
  can.model_name = "octavo-tiny";
  GenerationRequest request;
  request.prompt = "a red apple";
  request.guidance_scale = 7;
  request.strength = 0.6;
  const auto last_items = [&] {
    const std::string text = image::format_infotext(describe(request, 42, can, ""));
    return text.substr(text.find("Model: octavo-tiny") + std::string("Model: octavo-tiny").size());
  };
  EXPECT_EQ(last_items(), "");
  request.init_image = std::make_shared<const image::Image>();
  EXPECT_EQ(last_items(), ", Denoising strength: 0.6");
  request.mask = request.init_image;
  EXPECT_EQ(last_items(), ", Denoising strength: 0.6, Mask blur: 4");
  request.mask_blur = 0;
  request.mask_invert = request.only_masked = true;
  request.masked_content = MaskedContent::kLatentNoise;
  EXPECT_EQ(last_items(), ", Denoising strength: 0.6, Mask mode: Inpaint not masked, Inpaint area: Only masked, "
                          "Masked area padding: 32, Masked content: latent noise");
}

}  // namespace
}  // namespace octavo::generation
