// What clients should not send: each is refused by name, and the next request is served.
#include "tests/api/server_fixture.h"

namespace octavo::tests {
namespace {

using ::testing::HasSubstr;

struct BadField {
  const char* json;   // the fields, without braces
  const char* field;  // the last part of `loc`
  const char* type;
};

const BadField kBadFields[] = {
    {R"("width": 0)", "width", "value_error.number.not_ge"},
    {R"("width": 7)", "width", "value_error.number.not_ge"},
    {R"("width": -256)", "width", "value_error.number.not_ge"},
    {R"("width": 1000000000)", "width", "value_error.number.not_le"},
    {R"("height": 1e300)", "height", "value_error.number.not_le"},
    {R"("height": 99999999999999999999999999)", "height", "value_error.number.not_le"},
    {R"("height": -9223372036854775808)", "height", "value_error.number.not_ge"},
    {R"("height": "tall")", "height", "type_error.integer"},
    {R"("height": [128])", "height", "type_error.integer"},
    {R"("steps": 0)", "steps", "value_error.number.not_ge"},
    {R"("steps": 1000000000)", "steps", "value_error.number.not_le"},
    {R"("steps": {})", "steps", "type_error.integer"},
    {R"("cfg_scale": -1)", "cfg_scale", "value_error.number.not_ge"},
    {R"("cfg_scale": 1e9)", "cfg_scale", "value_error.number.not_le"},
    {R"("cfg_scale": "nan")", "cfg_scale", "value_error.number.not_finite_number"},
    {R"("cfg_scale": "much")", "cfg_scale", "type_error.float"},
    {R"("batch_size": 0)", "batch_size", "value_error.number.not_ge"},
    {R"("batch_size": 65)", "batch_size", "value_error.number.not_le"},
    {R"("n_iter": -1)", "n_iter", "value_error.number.not_ge"},
    {R"("n_iter": 1000000000)", "n_iter", "value_error.number.not_le"},
    {R"("batch_size": 9, "n_iter": 9)", "n_iter", "value_error.number.not_le"},
    {R"("seed": -2)", "seed", "value_error.number.not_ge"},
    {R"("seed": 9223372036854775807)", "seed", "value_error.number.not_le"},
    {R"("seed": "seven")", "seed", "type_error.integer"},
    {R"("prompt": ["a"])", "prompt", "type_error.str"},
    {R"("prompt": {"a": 1})", "prompt", "type_error.str"},
    {R"("prompt": "a\u0000b")", "prompt", "value_error"},
    {R"("negative_prompt": "a\u0000b")", "negative_prompt", "value_error"},
    {R"("sampler_name": "no such sampler")", "sampler_name", "value_error.sampler"},
    {R"("sampler_index": "no such sampler")", "sampler_index", "value_error.sampler"},
    {R"("sampler_index": null)", "sampler_index", "type_error.none.not_allowed"},
    {R"("sampler_name": {})", "sampler_name", "type_error.str"},
    {R"("styles": "a")", "styles", "type_error.list"},
    {R"("send_images": "maybe")", "send_images", "type_error.bool"},
    {R"("send_images": null)", "send_images", "type_error.none.not_allowed"},
    {R"("override_settings": 5)", "override_settings", "type_error.dict"},
    {R"("alwayson_scripts": [1])", "alwayson_scripts", "type_error.dict"},
    {R"("script_args": {})", "script_args", "type_error.list"},
    {R"("hr_scale": {})", "hr_scale", "type_error.float"},
    {R"("enable_hr": true)", "enable_hr", "value_error.unsupported"},
    {R"("subseed_strength": 1.5)", "subseed_strength", "value_error.number.not_le"},
    {R"("eta": -0.5)", "eta", "value_error.number.not_ge"},
    {R"("s_noise": 11)", "s_noise", "value_error.number.not_le"},
    {R"("override_settings": {"randn_source": "dice"})", "override_settings", "value_error.randn_source"},
};

class BadInput : public ServerTest {};

TEST_F(BadInput, every_bad_field_is_named_and_the_next_request_is_served) {
  start();
  for (const BadField& bad : kBadFields) {
    const Answer answer = draw(std::string("{") + bad.json + "}");
    ASSERT_EQ(answer.status, 422) << bad.json << answer.body;
    const auto detail = parse(answer.body).at("detail").as_array();
    ASSERT_EQ(detail.size(), 1u) << answer.body;
    EXPECT_EQ(text_of(detail[0].at("loc").at(0)), "body");
    EXPECT_EQ(text_of(detail[0].at("loc").at(1)), bad.field) << bad.json;
    EXPECT_EQ(text_of(detail[0].at("type")), bad.type) << bad.json;
    EXPECT_FALSE(text_of(detail[0].at("msg")).empty());
  }
  EXPECT_TRUE(alive());
  EXPECT_EQ(generator.runs_started(), 1);
}

TEST_F(BadInput, several_bad_fields_are_all_named) {
  start();
  const auto detail =
      parse(draw(R"({"steps": 0, "width": 7, "cfg_scale": [], "seed": {}})").body).at("detail").as_array();
  EXPECT_EQ(detail.size(), 4u);
}

TEST_F(BadInput, values_a1111_coerces_are_accepted) {
  start();
  for (const char* json : {R"("width": "128", "height": 130.7, "steps": true)", R"("steps": "2", "cfg_scale": "7")",
                           R"("seed": null, "steps": 1, "width": null, "sampler_name": null, "scheduler": null)",
                           R"("prompt": 5, "steps": 1)", R"("sampler_name": "DPM++ 2M Karras", "steps": 1)",
                           R"("sampler_name": "Euler a", "scheduler": "automatic", "steps": 1)",
                           R"("unknown_key": {"deep": [1, 2]}, "steps": 1)", R"("hr_scale": "1.0", "steps": 1)",
                           R"("override_settings": [], "steps": 1, "override_settings_restore_afterwards": "yes")",
                           R"("steps": 0, "steps": 1)"}) {
    const Answer answer = draw(std::string("{") + json + "}");
    EXPECT_EQ(answer.status, 200) << json << answer.body;
  }
  const auto floored = parse(draw(R"({"steps": 1, "width": 143, "height": 128.9})").body);
  EXPECT_EQ(floored.at("parameters").at("width").as_int64(), 143);
  EXPECT_EQ(parse(text_of(floored.at("info"))).at("width").as_int64(), 128);
}

TEST_F(BadInput, unknown_scripts_are_refused_in_the_application_shape) {
  start();
  for (const char* json : {R"({"script_name": "x/y plot"})", R"({"alwayson_scripts": {"x/y plot": {"args": []}}})"}) {
    const Answer answer = draw(json);
    EXPECT_EQ(answer.status, 422);
    EXPECT_EQ(text_of(parse(answer.body).at("detail")), "Script 'x/y plot' not found");
  }
}

TEST_F(BadInput, malformed_json_is_422_with_its_place) {
  start();
  const auto detail = parse(draw("{\"prompt\": \n ]").body).at("detail").at(0);
  EXPECT_EQ(text_of(detail.at("type")), "value_error.jsondecode");
  EXPECT_EQ(detail.at("loc").at(1).as_int64(), 13);
  EXPECT_EQ(detail.at("ctx").at("lineno").as_int64(), 2);
  for (const std::string& body :
       {std::string("{"), std::string("nope"), std::string("{\"a\": NaN}"), std::string("{}x"),
        std::string("{\"prompt\": \"a\xFF\"}"), std::string("{\"prompt\": \"\xED\xA0\x80\"}"),
        std::string("{\"prompt\": \"\\ud800\"}"), std::string("\0", 1), std::string("{\"prompt\": \"a\nb\"}"),
        std::string(100000, '['), std::string(3, '\xEF')}) {
    const Answer answer = draw(body);
    EXPECT_EQ(answer.status, 422) << body.substr(0, 40);
    EXPECT_EQ(text_of(parse(answer.body).at("detail").at(0).at("type")), "value_error.jsondecode")
        << body.substr(0, 40);
  }
  for (const char* body : {"[]", "5", "\"text\"", "null"}) {
    EXPECT_EQ(text_of(parse(draw(body).body).at("detail").at(0).at("type")), "type_error.dict") << body;
  }
  EXPECT_EQ(text_of(parse(draw("").body).at("detail").at(0).at("msg")), "field required");
  EXPECT_TRUE(alive());
}

TEST_F(BadInput, long_prompts_and_large_documents_are_refused) {
  start();
  const Answer megabyte = draw("{\"prompt\": \"" + std::string(1 << 20, 'x') + "\"}");
  EXPECT_EQ(megabyte.status, 422);
  EXPECT_EQ(text_of(parse(megabyte.body).at("detail").at(0).at("loc").at(1)), "prompt");
  std::string ones = "{\"script_args\": [1";
  for (int i = 0; i < 4000000; ++i) ones += ",1";
  const Answer large = draw(ones + "]}");
  EXPECT_EQ(large.status, 422);
  EXPECT_THAT(large.body, HasSubstr("too many values"));
  EXPECT_TRUE(alive());
}

TEST_F(BadInput, bad_query_values_are_named) {
  start();
  const Answer answer = call("GET", "/sdapi/v1/progress?skip_current_image=perhaps");
  EXPECT_EQ(answer.status, 422);
  EXPECT_EQ(
      answer.body,
      "{\"detail\":[{\"loc\":[\"query\",\"skip_current_image\"],\"msg\":\"value could not be parsed to a boolean\","
      "\"type\":\"type_error.bool\"}]}");
}

}  // namespace
}  // namespace octavo::tests
