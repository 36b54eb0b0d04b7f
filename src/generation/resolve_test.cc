#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <utility>

#include "generation/generation.h"

namespace octavo::generation {
namespace {

Capabilities tiny() {
  Capabilities can;
  can.model_name = "tiny";
  return can;
}

/// The field a request is refused for, or "" when it is accepted.
std::string refused_field(const std::function<void(GenerationRequest&)>& change) {
  GenerationRequest request;
  change(request);
  const auto resolved = resolve(request, tiny());
  if (resolved.ok()) return "";
  EXPECT_EQ(resolved.status().code(), ErrorCode::kInvalidArgument);
  return resolved.status().subject();
}

TEST(Resolve, fills_the_models_defaults) {
  const auto resolved = resolve({}, tiny());
  ASSERT_TRUE(resolved.ok());
  EXPECT_EQ(resolved->width, 256);
  EXPECT_EQ(resolved->height, 256);
  EXPECT_EQ(resolved->steps, 28);
  EXPECT_EQ(resolved->guidance_scale, 7.0);
  EXPECT_EQ(resolved->t5_length, 77);
  EXPECT_EQ(resolved->prompt_syntax, "a1111");
  EXPECT_EQ(resolved->clip_skip, 0);
}

TEST(Resolve, t5_is_as_short_as_comfyui_has_it_under_its_rules) {
  Capabilities can = tiny();
  can.max_t5_length = 512;
  can.default_t5_length = 256;
  GenerationRequest request;
  EXPECT_EQ(resolve(request, can)->t5_length, 256);
  request.prompt_syntax = "comfyui";
  EXPECT_EQ(resolve(request, can)->t5_length, 77);
  request.t5_length = 512;
  EXPECT_EQ(resolve(request, can)->t5_length, 512);
  can.max_t5_length = 40;
  request.t5_length = 0;
  EXPECT_EQ(resolve(request, can)->t5_length, 40);
}

TEST(Resolve, keeps_a_given_seed_and_draws_a_32_bit_one_otherwise) {
  GenerationRequest request;
  request.seed = 0;
  EXPECT_EQ(resolve(request, tiny())->seed, 0);
  request.seed = std::int64_t{1} << 40;
  EXPECT_EQ(resolve(request, tiny())->seed, std::int64_t{1} << 40);
  request.seed = -1;
  for (int i = 0; i < 20; ++i) {
    const std::int64_t drawn = resolve(request, tiny())->seed;
    EXPECT_GE(drawn, 0);
    EXPECT_LE(drawn, 0xFFFFFFFF);
  }
}

TEST(Resolve, names_the_field_it_refuses) {
  for (const int size : {-16, 7, 16, 100, 127, 130, 400, 1'000'000'000, std::numeric_limits<int>::max()}) {
    EXPECT_EQ(refused_field([&](auto& r) { r.width = size; }), "width") << size;
    EXPECT_EQ(refused_field([&](auto& r) { r.height = size; }), "height") << size;
  }
  for (const int steps : {-1, 201, std::numeric_limits<int>::min()})
    EXPECT_EQ(refused_field([&](auto& r) { r.steps = steps; }), "steps");
  for (const double guidance :
       {101.0, 1e300, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_EQ(refused_field([&](auto& r) { r.guidance_scale = guidance; }), "guidance_scale") << guidance;
  }
  for (const int count : {-1, 0, 65}) EXPECT_EQ(refused_field([&](auto& r) { r.image_count = count; }), "image_count");
  for (const int skip : {-1, 13}) EXPECT_EQ(refused_field([&](auto& r) { r.clip_skip = skip; }), "clip_skip");
  for (const char* syntax : {"A1111", "none", " "}) {
    EXPECT_EQ(refused_field([&](auto& r) { r.prompt_syntax = syntax; }), "prompt_syntax") << syntax;
  }
  for (const int length : {-1, 78}) EXPECT_EQ(refused_field([&](auto& r) { r.t5_length = length; }), "t5_length");
  EXPECT_EQ(refused_field([&](auto& r) {
              r.seed = std::numeric_limits<std::int64_t>::max();
              r.image_count = 2;
            }),
            "seed");
  EXPECT_EQ(refused_field([&](auto& r) {
              r.seed = std::numeric_limits<std::int64_t>::max() - 1;
              r.image_count = 2;
            }),
            "");
}

TEST(Resolve, makes_sampler_and_schedule_canonical) {
  Capabilities can = tiny();
  can.samplers = {{.name = "euler", .label = "Euler", .aliases = {"k_euler"}, .schedule = "normal"},
                  {.name = "dpmpp_2m", .label = "DPM++ 2M", .aliases = {}, .schedule = "karras"}};
  can.schedules = {{.name = "normal", .label = "Normal", .aliases = {}, .schedule = ""},
                   {.name = "karras", .label = "Karras", .aliases = {}, .schedule = ""}};
  const auto resolved = [&](const char* sampler, const char* schedule) {
    GenerationRequest request;
    request.sampler = sampler;
    request.schedule = schedule;
    const auto result = resolve(request, can);
    return result.ok() ? result->sampler + "/" + result->schedule : "? " + result.status().subject();
  };
  EXPECT_EQ(resolved("", ""), "euler/normal");
  EXPECT_EQ(resolved("K_Euler", "Automatic"), "euler/normal");
  EXPECT_EQ(resolved("DPM++ 2M", ""), "dpmpp_2m/karras") << "the sampler's own default";
  EXPECT_EQ(resolved("Euler Karras", ""), "euler/karras");
  EXPECT_EQ(resolved("Euler Karras", "normal"), "euler/normal") << "the given one wins";
  EXPECT_EQ(resolved("nope", ""), "? sampler");
  EXPECT_EQ(resolved("Euler nope", ""), "? sampler");
  EXPECT_EQ(resolved("", "nope"), "? schedule");
}

TEST(Resolve, noise_fields_have_ranges_and_defaults) {
  EXPECT_EQ(resolve({}, tiny())->noise_source, "cpu");
  EXPECT_GE(resolve({}, tiny())->subseed, 0);
  EXPECT_EQ(refused_field([](auto& r) { r.noise_source = "dice"; }), "noise_source");
  EXPECT_EQ(refused_field([](auto& r) { r.noise_source = "nv"; }), "");
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double value : {-0.1, 1.1, nan}) {
    EXPECT_EQ(refused_field([&](auto& r) { r.subseed_strength = value; }), "subseed_strength") << value;
    EXPECT_EQ(refused_field([&](auto& r) { r.eta = value; }), "eta") << value;
  }
  for (const double value : {-1.0, 0.05, 101.0, nan}) {
    EXPECT_EQ(refused_field([&](auto& r) { r.shift = value; }), "shift") << value;
  }
  for (const double value : {-0.1, 11.0, nan}) {
    EXPECT_EQ(refused_field([&](auto& r) { r.s_noise = value; }), "s_noise") << value;
  }
  for (const int value : {-8, 7, 1 << 20}) {
    EXPECT_EQ(refused_field([&](auto& r) { r.seed_resize_width = value; }), "seed_resize_width") << value;
  }
  EXPECT_EQ(refused_field([](auto& r) {
              r.subseed = std::numeric_limits<std::int64_t>::max();
              r.image_count = 2;
            }),
            "subseed");
}

TEST(ImageSeeds, count_the_seed_or_with_a_variation_the_subseed) {
  GenerationRequest request;
  request.seed = 10;
  request.subseed = 20;
  EXPECT_EQ(image_seeds(request, 3).seed, 13);
  EXPECT_EQ(image_seeds(request, 3).subseed, 23);
  request.subseed_strength = 0.1;
  EXPECT_EQ(image_seeds(request, 3).seed, 10);
  EXPECT_EQ(image_seeds(request, 3).subseed, 23);
}

TEST(Resolve, refuses_prompts_that_are_not_text) {
  EXPECT_EQ(refused_field([&](auto& r) { r.prompt = "caf\xE9"; }), "prompt");
  EXPECT_EQ(refused_field([&](auto& r) { r.prompt = std::string("a\0b", 3); }), "prompt");
  EXPECT_EQ(refused_field([&](auto& r) { r.prompt = std::string(kMaxPromptBytes + 1, 'x'); }), "prompt");
  EXPECT_EQ(refused_field([&](auto& r) { r.prompt = std::string(kMaxPromptBytes, 'x'); }), "");
  EXPECT_EQ(refused_field([&](auto& r) { r.negative_prompt = "\xED\xA0\x80"; }), "negative_prompt");  // a surrogate
  for (const auto& [field, name] : {std::pair{&GenerationRequest::prompt_2, "prompt_2"},
                                    {&GenerationRequest::prompt_3, "prompt_3"},
                                    {&GenerationRequest::negative_prompt_2, "negative_prompt_2"},
                                    {&GenerationRequest::negative_prompt_3, "negative_prompt_3"}}) {
    EXPECT_EQ(refused_field([&, member = field](auto& r) { r.*member = "\xFF"; }), name);
  }
  EXPECT_EQ(refused_field([&](auto& r) {
              r.prompt = "";
              r.negative_prompt = "\xF0\x9F\x90\xB1";
            }),
            "");
}

TEST(Resolve, skip_layer_guidance_has_defaults_and_is_cleared_when_off) {
  GenerationRequest request;
  request.skip_layer_scale = 2.8;
  Capabilities can = tiny();
  can.layer_count = 24;
  EXPECT_EQ(resolve(request, can)->skip_layers, (std::vector<int>{7, 8, 9}));
  request.skip_layers = {4, 2, 4};
  EXPECT_EQ(resolve(request, can)->skip_layers, (std::vector<int>{2, 4}));
  request.skip_layer_scale = 0;
  request.skip_layer_stop = 0.5;
  EXPECT_TRUE(resolve(request, can)->skip_layers.empty());
  EXPECT_EQ(resolve(request, can)->skip_layer_stop, GenerationRequest{}.skip_layer_stop);
}

TEST(Resolve, skip_layer_guidance_is_checked_by_field) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double scale : {-1.0, 101.0, nan}) {
    EXPECT_EQ(refused_field([&](auto& r) { r.skip_layer_scale = scale; }), "skip_layer_scale") << scale;
  }
  EXPECT_EQ(refused_field([&](auto& r) {
              r.skip_layer_scale = 1;
              r.skip_layers = {2};
              r.guidance_scale = 1;
            }),
            "skip_layer_scale");
  for (const double fraction : {-0.1, 1.1, nan}) {
    EXPECT_EQ(refused_field([&](auto& r) { r.skip_layer_start = fraction; }), "skip_layer_start") << fraction;
    EXPECT_EQ(refused_field([&](auto& r) { r.skip_layer_stop = fraction; }), "skip_layer_stop") << fraction;
  }
  EXPECT_EQ(refused_field([&](auto& r) { r.skip_layer_start = 0.5; }), "skip_layer_stop") << "ends before it begins";
  for (const int layer : {-1, 6}) {
    EXPECT_EQ(refused_field([&](auto& r) {
                r.skip_layer_scale = 1;
                r.skip_layers = {2, layer};
              }),
              "skip_layers");
  }
  EXPECT_EQ(refused_field([&](auto& r) { r.skip_layer_scale = 2.8; }), "skip_layers") << "tiny has no layer 7";
}

TEST(Progress, fraction_covers_the_whole_call) {
  EXPECT_EQ(Progress{}.fraction(), 0.0);
  EXPECT_DOUBLE_EQ((Progress{.image_index = 1, .image_count = 2, .step = 5, .steps = 10, .stage = {}}.fraction()),
                   0.75);
}

TEST(CancelToken, copies_share_one_flag) {
  const CancelToken token;
  const CancelToken copy = token;
  token.cancel();
  EXPECT_TRUE(copy.cancelled());
}

TEST(Resolve, names_what_is_wrong_with_pictures_as_input) {
  Capabilities can = tiny();
  can.image_input = true;
  const auto picture = [](int width, int height) {
    const auto bytes = static_cast<std::size_t>(width) * height * 3;
    return std::make_shared<const image::Image>(image::Image{width, height, 3, std::vector<std::uint8_t>(bytes)});
  };
  const auto refused = [&](const std::function<void(GenerationRequest&)>& change) {
    GenerationRequest request;
    request.init_image = picture(128, 128);
    change(request);
    const auto resolved = resolve(request, can);
    return resolved.ok() ? std::string() : resolved.status().subject();
  };
  EXPECT_EQ(refused([&](auto& r) { r.mask = picture(7, 9); }), "");
  EXPECT_EQ(refused([&](auto& r) { r.mask = r.init_image, r.init_image = nullptr; }), "mask");
  EXPECT_EQ(refused([](auto& r) { r.init_image = std::make_shared<const image::Image>(); }), "init_image");
  EXPECT_EQ(refused([](auto& r) {
              r.mask = std::make_shared<const image::Image>(image::Image{2, 2, 3, {1}});
            }),
            "mask");
  for (const double strength : {0.0, -1.0, 1.01, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_EQ(refused([&](auto& r) { r.strength = strength; }), "strength") << strength;
  }
  for (const int value : {-1, 257}) {
    EXPECT_EQ(refused([&](auto& r) { r.mask_blur = value; }), "mask_blur");
    EXPECT_EQ(refused([&](auto& r) { r.mask_padding = value; }), "mask_padding");
  }
  can.image_input = false;
  EXPECT_EQ(refused([](auto&) {}), "init_image");
}

TEST(Resolve, takes_the_size_of_the_init_image_when_the_model_can_draw_it) {
  Capabilities can = tiny();
  can.image_input = true;
  GenerationRequest request;
  request.init_image =
      std::make_shared<const image::Image>(image::Image{150, 2000, 1, std::vector<std::uint8_t>(300'000)});
  const auto resolved = resolve(request, can);
  ASSERT_TRUE(resolved.ok());
  EXPECT_EQ(resolved->width, 144);
  EXPECT_EQ(resolved->height, 256) << "2000 is more than the model draws: its default";
  request.width = 128;
  EXPECT_EQ(resolve(request, can)->width, 128);
}

}  // namespace
}  // namespace octavo::generation
