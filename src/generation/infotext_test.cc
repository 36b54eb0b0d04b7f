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

}  // namespace
}  // namespace octavo::generation
