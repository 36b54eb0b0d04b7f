#include "generation/infotext.h"

#include <gtest/gtest.h>

namespace octavo::generation {
namespace {

TEST(Describe, says_what_was_drawn_in_a1111s_words_and_order) {
  Capabilities can;
  can.model_name = "octavo-tiny";
  can.model_hash = "0123456789";
  can.samplers = {{.name = "euler", .label = "Euler", .aliases = {"k_euler"}, .schedule = "normal"}};
  can.schedules = {{.name = "normal", .label = "Normal", .aliases = {}, .schedule = ""},
                   {.name = "simple", .label = "Simple", .aliases = {}, .schedule = ""},
                   {.name = "sgm_uniform", .label = "SGM Uniform", .aliases = {"sgmuniform"}, .schedule = ""}};
  GenerationRequest request;
  request.prompt = "a red apple";
  request.negative_prompt = "blurry";
  request.steps = 30;
  request.guidance_scale = 7;
  request.width = 256;
  request.height = 128;
  request.seed = 42;
  const ImageSeeds seeds = image_seeds(request, 0);
  EXPECT_EQ(image::format_infotext(describe(request, seeds, can, "octavo 0.1.0")),
            "a red apple\nNegative prompt: blurry\n"
            "Steps: 30, Sampler: Euler, Schedule type: Normal, CFG scale: 7.0, Seed: 42, Size: 256x128, "
            "Model hash: 0123456789, Model: octavo-tiny, RNG: CPU, Version: octavo 0.1.0");
  request.schedule = "sgm_uniform";
  can.model_hash.clear();
  const image::Infotext other = describe(request, seeds, can, "");
  EXPECT_EQ(image::format_infotext(other),
            "a red apple\nNegative prompt: blurry\n"
            "Steps: 30, Sampler: Euler, Schedule type: SGM Uniform, CFG scale: 7.0, Seed: 42, Size: 256x128, "
            "Model: octavo-tiny, RNG: CPU");
}

TEST(Describe, names_variations_noise_and_eta_as_a1111_does) {
  Capabilities can;
  can.samplers = {
      {.name = "euler", .label = "Euler", .aliases = {}, .schedule = "normal"},
      {.name = "euler_ancestral", .label = "Euler a", .aliases = {}, .schedule = "normal", .uses_eta = true}};
  can.schedules = {{.name = "karras", .label = "Karras", .aliases = {}, .schedule = ""}};
  GenerationRequest request;
  request.seed = 42;
  request.subseed = 7;
  request.subseed_strength = 0.25;
  request.seed_resize_width = 512;
  request.seed_resize_height = 768;
  request.noise_source = "nv";
  request.sampler = "euler_ancestral";
  request.schedule = "karras";
  request.eta = 0.5;
  request.s_noise = 1.1;
  request.shift = 5;
  const auto text = [&] { return image::format_infotext(describe(request, image_seeds(request, 2), can, "")); };
  EXPECT_NE(text().find("Sampler: Euler a, Schedule type: Karras, "), std::string::npos) << text();
  EXPECT_NE(text().find("Seed: 42, "), std::string::npos) << text();
  EXPECT_NE(text().find("Variation seed: 9, Variation seed strength: 0.25, Seed resize from: 512x768, RNG: NV, "
                        "Eta: 0.5, Sigma noise: 1.1, Shift: 5.0"),
            std::string::npos)
      << text();
  request.subseed_strength = 0;
  request.sampler = "euler";
  EXPECT_NE(text().find("Seed: 44, "), std::string::npos) << "no variation: the seed counts";
  EXPECT_EQ(text().find("Variation"), std::string::npos);
  EXPECT_EQ(text().find("Eta"), std::string::npos) << "Euler adds no noise";
}

TEST(Describe, says_how_the_prompt_was_read_where_it_is_not_the_usual) {
  GenerationRequest request;
  request.prompt = "a";
  request.prompt_syntax = "a1111";
  request.clip_skip = 1;
  EXPECT_EQ(image::format_infotext(describe(request, {}, {}, "")).find("Clip skip"), std::string::npos);
  request.clip_skip = 2;
  request.prompt_syntax = "comfyui";
  request.prompt_2 = "b, c";
  request.negative_prompt_3 = "d";
  EXPECT_NE(
      image::format_infotext(describe(request, {}, {}, "v"))
          .find("Clip skip: 2, RNG: CPU, Prompt syntax: comfyui, Prompt 2: \"b, c\", Negative prompt 3: d, Version: v"),
      std::string::npos);
}

TEST(Describe, names_skip_layer_guidance_when_it_is_on) {
  GenerationRequest request;
  request.skip_layers = {7, 8, 9};
  const auto text = [&] { return image::format_infotext(describe(request, {}, Capabilities{}, "octavo 0.1.0")); };
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
    const std::string text = image::format_infotext(describe(request, {}, can, ""));
    return text.substr(text.find("RNG: CPU") + std::string("RNG: CPU").size());
  };
  EXPECT_EQ(last_items(), "");
  request.init_image = std::make_shared<const image::Image>();
  EXPECT_EQ(last_items(), ", Denoising strength: 0.6");
  request.mask = request.init_image;
  EXPECT_EQ(last_items(), ", Denoising strength: 0.6, Mask blur: 4");
  request.mask_blur = 0;
  request.mask_invert = request.only_masked = true;
  request.masked_content = MaskedContent::kLatentNoise;
  EXPECT_EQ(last_items(),
            ", Denoising strength: 0.6, Mask mode: Inpaint not masked, Inpaint area: Only masked, "
            "Masked area padding: 32, Masked content: latent noise");
}

}  // namespace
}  // namespace octavo::generation
