// The pure function; tests/api sends the same through sockets.
#include "api/a1111/txt2img_request.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <random>

namespace octavo::api::a1111 {
namespace {

generation::Capabilities tiny() {
  generation::Capabilities can;
  can.model_name = "tiny";
  can.samplers = {{.name = "euler", .label = "Euler", .aliases = {"k_euler"}, .schedule = "normal"}};
  can.schedules = {{.name = "normal", .label = "Normal", .aliases = {}, .schedule = ""},
                   {.name = "simple", .label = "Simple", .aliases = {}, .schedule = ""}};
  return can;
}

Txt2ImgCall accepted(std::string_view json) {
  auto parsed = parse_txt2img(json, tiny());
  if (const auto* refusal = std::get_if<http::Response>(&parsed)) {
    ADD_FAILURE() << refusal->body;
    return {};
  }
  return std::get<Txt2ImgCall>(std::move(parsed));
}

int refused_status(std::string_view json) {
  const auto parsed = parse_txt2img(json, tiny());
  const auto* refusal = std::get_if<http::Response>(&parsed);
  return refusal == nullptr ? 0 : refusal->status;
}

TEST(ParseTxt2Img, an_empty_object_asks_for_the_models_defaults) {
  const Txt2ImgCall call = accepted("{}");
  EXPECT_EQ(call.request.width, 256);
  EXPECT_EQ(call.request.steps, 28);
  EXPECT_EQ(call.request.guidance_scale, 7.0);
  EXPECT_EQ(call.request.image_count, 1);
  EXPECT_GE(call.request.seed, 0);
  EXPECT_TRUE(call.request.keep_partial);
  EXPECT_EQ(call.request.sampler, "euler");
}

TEST(ParseTxt2Img, the_echo_lists_every_field_in_a1111s_order) {
  const std::string& echo = accepted(R"({"seed": 5, "cfg_scale": 4, "zzz": 1})").parameters;
  EXPECT_EQ(echo.substr(0, echo.find("sampler_name")),
            R"({"prompt":"","negative_prompt":"","styles":null,"seed":5,"subseed":-1,"subseed_strength":0.0,)"
            R"("seed_resize_from_h":-1,"seed_resize_from_w":-1,")");
  EXPECT_NE(echo.find(R"("steps":28,"cfg_scale":4.0,"width":256,"height":256,)"), std::string::npos);
  EXPECT_NE(echo.find(R"("sampler_index":"Euler","script_name":null,"script_args":[],"send_images":true,)"
                      R"("save_images":false,"alwayson_scripts":{},"infotext":null})"),
            std::string::npos);
  EXPECT_EQ(echo.find("zzz"), std::string::npos);
}

TEST(ParseTxt2Img, sizes_are_rounded_down_to_the_models_multiple) {
  const Txt2ImgCall call = accepted(R"({"width": 399, "height": 143})");
  EXPECT_EQ(call.request.width, 384);
  EXPECT_EQ(call.request.height, 128);
}

TEST(ParseTxt2Img, batches_and_iterations_multiply) {
  const Txt2ImgCall call = accepted(R"({"batch_size": 4, "n_iter": 16})");
  EXPECT_EQ(call.request.image_count, 64);
  EXPECT_EQ(call.batch_size, 4);
  EXPECT_EQ(refused_status(R"({"batch_size": 5, "n_iter": 16})"), 422);
}

TEST(ParseTxt2Img, variations_noise_source_and_eta_are_read) {
  const auto request = accepted(R"({"seed": 5, "subseed": 9, "subseed_strength": 0.25, "seed_resize_from_w": 128,)"
                                R"( "seed_resize_from_h": 192, "eta": 0.5, "s_noise": 1.1,)"
                                R"( "override_settings": {"randn_source": "NV", "eta_noise_seed_delta": 0}})")
                           .request;
  EXPECT_EQ(request.subseed, 9);
  EXPECT_EQ(request.subseed_strength, 0.25);
  EXPECT_EQ(request.seed_resize_width, 128);
  EXPECT_EQ(request.seed_resize_height, 192);
  EXPECT_EQ(request.eta, 0.5);
  EXPECT_EQ(request.s_noise, 1.1);
  EXPECT_EQ(request.noise_source, "nv");
  const auto plain =
      accepted(R"({"subseed": null, "eta": null, "seed_resize_from_w": 128, "override_settings": null})");
  EXPECT_EQ(plain.request.seed_resize_width, 0) << "one side alone means nothing";
  EXPECT_EQ(plain.request.eta, 1);
  EXPECT_EQ(plain.request.noise_source, "cpu");
  EXPECT_EQ(accepted(R"({"override_settings": {"randn_source": "GPU"}})").request.noise_source, "nv");
}

TEST(ParseTxt2Img, the_sampler_name_wins_over_the_index_and_the_scheduler_is_read) {
  EXPECT_EQ(accepted(R"({"sampler_name": "Euler", "sampler_index": "nope"})").request.sampler, "euler");
  EXPECT_EQ(refused_status(R"({"sampler_name": "", "sampler_index": "nope"})"), 422);
  EXPECT_EQ(accepted(R"({"scheduler": "Simple"})").request.schedule, "simple");
}

TEST(ParseTxt2Img, weights_are_a1111s_and_clip_skip_is_an_override) {
  EXPECT_EQ(accepted(R"json({"prompt": "(a:1.3)"})json").request.prompt_syntax, "a1111");
  EXPECT_EQ(accepted("{}").request.clip_skip, 0);
  for (const char* value : {"1", "1.0", "\"1\"", "true"}) {
    EXPECT_EQ(accepted(std::string(R"({"override_settings": {"CLIP_stop_at_last_layers": )") + value + "}}")
                  .request.clip_skip,
              1)
        << value;
  }
  EXPECT_EQ(accepted(R"({"override_settings": {"CLIP_stop_at_last_layers": 3}, "clip_skip": 9})").request.clip_skip, 3);
  EXPECT_EQ(accepted(R"({"override_settings": {"CLIP_stop_at_last_layers": null}})").request.clip_skip, 0);
  for (const char* value : {"13", "-1", "\"many\"", "[]"}) {
    EXPECT_EQ(refused_status(std::string(R"({"override_settings": {"CLIP_stop_at_last_layers": )") + value + "}}"), 422)
        << value;
  }
}

TEST(ParseTxt2Img, the_largest_seed_leaves_room_for_a_batch) {
  EXPECT_EQ(accepted(R"({"seed": 9223372036854775743, "batch_size": 64})").request.seed, 9223372036854775743);
  EXPECT_EQ(refused_status(R"({"seed": 9223372036854775744})"), 422);
}

TEST(ParseTxt2Img, a_number_beyond_doubles_is_refused_where_it_would_be_echoed) {
  for (const char* body : {R"({"prompt": "x", "override_settings": {"a": {"b": 1e714}}})",
                           R"({"prompt": "x", "alwayson_scripts": {"s": {"args": [1, -1e999]}}})"}) {
    const auto parsed = parse_txt2img(body, tiny());
    const auto* refusal = std::get_if<http::Response>(&parsed);
    ASSERT_NE(refusal, nullptr) << body;
    EXPECT_EQ(refusal->status, 422);
    EXPECT_NE(refusal->body.find("finite"), std::string::npos) << refusal->body;
  }
}

TEST(ParseTxt2Img, changed_bytes_never_crash_it_and_what_is_accepted_can_be_drawn) {
  const std::string seed_text =
      R"({"prompt": "a \u00e9 cat", "negative_prompt": "x", "width": 256, "height": 1.5e2, "steps": "7", "cfg_scale": 7.0,)"
      R"( "seed": -1, "batch_size": 2, "n_iter": 1, "sampler_name": "Euler", "scheduler": null, "send_images": true,)"
      R"( "override_settings": {"a": [1, {}]}, "styles": ["a"], "alwayson_scripts": {}, "enable_hr": false})";
  std::mt19937 random(11);
  int refusals = 0;
  for (int round = 0; round < 5000; ++round) {
    std::string text = seed_text;
    for (unsigned i = 0; i <= random() % 4; ++i) {
      const std::size_t at = random() % text.size();
      switch (random() % 4) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, random() % 8);
          break;
        case 2:
          text.insert(at, 1, "\"{}[],:0-9e\\"[random() % 12]);
          break;
        default:
          text.insert(at, text.substr(random() % text.size(), random() % 16));
      }
    }
    const auto parsed = parse_txt2img(text, tiny());
    if (const auto* refusal = std::get_if<http::Response>(&parsed)) {
      ++refusals;
      ASSERT_EQ(refusal->status, 422) << text;
      ASSERT_NO_THROW(boost::json::parse(refusal->body)) << refusal->body;
    } else {
      const auto& call = std::get<Txt2ImgCall>(parsed);
      ASSERT_TRUE(generation::resolve(call.request, tiny()).ok()) << text;
      ASSERT_NO_THROW(boost::json::parse(call.parameters)) << call.parameters;
    }
  }
  EXPECT_GT(refusals, 100);
  EXPECT_LT(refusals, 5000);
}

}  // namespace
}  // namespace octavo::api::a1111
