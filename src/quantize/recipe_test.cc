#include "quantize/recipe.h"

#include <gmock/gmock.h>

#include <boost/json.hpp>
#include <limits>

#include "quantize/policy.h"

namespace octavo::quantize {
namespace {

Recipe some_recipe() {
  Recipe recipe{.calibration = CalibrationRecord{.prompts_hash = "ab12",
                                                 .tokens_hash = "cd34",
                                                 .prompts = 64,
                                                 .steps = 28,
                                                 .seed = 7,
                                                 .width = 256,
                                                 .height = 192,
                                                 .guidance_scale = 4.5,
                                                 .shift = 3.25,
                                                 .arithmetic = "f32",
                                                 .model_hash = "0123456789"},
                .activations = Activations::kStatic,
                .smooth_alpha = 0.5,
                .outliers = 4,
                .policy = "auto"};
  recipe.layers.push_back({.layer = "transformer_blocks.0.attn.to_q",
                           .quantised = true,
                           .reason = "attention's products",
                           .format = DType::kE5M2,
                           .weight_grain = ScaleGrain::kBlock128,
                           .activations = Activations::kStatic,
                           .static_amax = 0.1f,
                           .smooth = {1.0f / 3.0f, std::numeric_limits<float>::min(), 1e30f},
                           .outliers = {0, 2},
                           .output_error = 1.25e-5,
                           .velocity_error = 0.1});
  recipe.layers.push_back({.layer = "proj_out", .reason = "the \"last\" product"});
  return recipe;
}

TEST(Recipe, json_keeps_every_bit) {
  const std::string text = boost::json::serialize(to_json(some_recipe()));
  const auto read = recipe_from_json(boost::json::parse(text).get_object(), "recipe.json");
  ASSERT_TRUE(read.ok()) << read.status().to_string();
  EXPECT_EQ(*read, some_recipe());
}

TEST(Recipe, without_calibration_reads_back_without_it) {
  Recipe recipe = some_recipe();
  recipe.calibration.reset();
  const auto read = recipe_from_json(to_json(recipe), "recipe.json");
  ASSERT_TRUE(read.ok()) << read.status().to_string();
  EXPECT_EQ(*read, recipe);
}

TEST(Recipe, a_member_that_is_missing_or_wrong_is_named) {
  auto json = to_json(some_recipe());
  json["layers"].get_array()[0].get_object()["format"] = "e3m4";
  EXPECT_EQ(recipe_from_json(json, "recipe.json").status().to_string(),
            "recipe.json: layers[0].format: 'e3m4' is none of e4m3, e5m2, int8");
  json["layers"].get_array()[0].get_object().erase("format");
  EXPECT_EQ(recipe_from_json(json, "recipe.json").status().to_string(),
            "recipe.json: layers[0]: \"format\" is not text");
}

TEST(Recipe, finds_layers_by_name) {
  const Recipe recipe = some_recipe();
  ASSERT_NE(recipe.find("proj_out"), nullptr);
  EXPECT_FALSE(recipe.find("proj_out")->quantised);
  EXPECT_EQ(recipe.find("proj"), nullptr);
}

TEST(Recipe, words_of_flags_are_listed_when_one_is_wrong) {
  EXPECT_EQ(*parse_format("int8", "--format"), DType::kI8);
  EXPECT_EQ(*parse_weight_grain("channel", "--weights"), ScaleGrain::kRow);
  EXPECT_EQ(*parse_activations("none", "--activations"), Activations::kNone);
  EXPECT_EQ(parse_weight_grain("row", "--weights").status().to_string(),
            "--weights: 'row' is none of channel, tensor, block");
}

TEST(Policy, stars_stand_for_any_text) {
  EXPECT_TRUE(matches("*", ""));
  EXPECT_TRUE(matches("transformer_blocks.*.ff.net.*", "transformer_blocks.11.ff.net.0.proj"));
  EXPECT_FALSE(matches("transformer_blocks.*.ff.net.*", "transformer_blocks.11.ff_context.net.2"));
  EXPECT_TRUE(matches("a*bc*d", "axbcbcyd"));
  EXPECT_FALSE(matches("a*bc", "abcx"));
  EXPECT_FALSE(matches("proj", "proj_out"));
}

TEST(Policy, default_quantises_the_blocks_products_and_stores_modulations_small) {
  const Policy policy = default_policy();
  for (const char* layer : {"transformer_blocks.0.attn.to_q", "transformer_blocks.37.attn.add_k_proj",
                            "transformer_blocks.3.attn.to_out.0", "transformer_blocks.3.attn.to_add_out",
                            "transformer_blocks.12.attn2.to_v", "transformer_blocks.5.ff.net.0.proj",
                            "transformer_blocks.5.ff.net.2", "transformer_blocks.5.ff_context.net.2"}) {
    EXPECT_TRUE(decide(policy, layer).quantise) << layer;
  }
  for (const char* layer : {"transformer_blocks.0.norm1.linear", "transformer_blocks.7.norm1_context.linear"}) {
    EXPECT_TRUE(decide(policy, layer).quantise) << layer;
    EXPECT_EQ(decide(policy, layer).activations, Activations::kNone) << layer;
    EXPECT_EQ(decide(policy, layer).format, DType::kI8) << layer;
  }
  for (const char* layer : {"time_text_embed.timestep_embedder.linear_1", "context_embedder", "norm_out.linear",
                            "proj_out", "something_new"}) {
    EXPECT_FALSE(decide(policy, layer).quantise) << layer;
    EXPECT_FALSE(decide(policy, layer).reason.empty()) << layer;
  }
}

TEST(Policy, last_rule_that_matches_wins) {
  const auto policy = policy_from_json(boost::json::parse(R"({"rules": [
      {"pattern": "*.ff.*", "quantise": true, "reason": "feed-forward"},
      {"pattern": "*.0.*", "quantise": false}]})")
                                           .get_object(),
                                       "my.json");
  ASSERT_TRUE(policy.ok()) << policy.status().to_string();
  EXPECT_TRUE(decide(*policy, "transformer_blocks.1.ff.net.2").quantise);
  EXPECT_FALSE(decide(*policy, "transformer_blocks.0.ff.net.2").quantise);
  EXPECT_EQ(decide(*policy, "transformer_blocks.0.ff.net.2").reason, "rule *.0.* of my.json");
}

TEST(Policy, wrong_files_are_refused_by_place) {
  const auto error = [](const char* text) {
    return policy_from_json(boost::json::parse(text).get_object(), "my.json").status().to_string();
  };
  EXPECT_EQ(error("{}"), "my.json: \"rules\" is not a list");
  EXPECT_EQ(error(R"({"rules": []})"), "my.json: \"rules\" is empty: nothing would be quantised");
  EXPECT_EQ(
      error(R"({"rules": [{"pattern": "*", "quantize": true}]})"),
      "my.json: rules[0]: has \"quantize\", which is none of pattern, quantise, reason, format, weights, activations");
  EXPECT_EQ(error(R"({"rules": [{"pattern": "*"}]})"), "my.json: rules[0]: \"quantise\" is not true or false");
  EXPECT_EQ(error(R"({"rules": [{"pattern": "*", "quantise": true, "weights": 8}]})"),
            "my.json: rules[0]: \"weights\" is not text");
  EXPECT_EQ(error(R"({"rules": [{"pattern": "*", "quantise": true, "activations": "never"}]})"),
            "my.json: rules[0]: \"activations\": 'never' is none of token, static, block, none");
}

TEST(Policy, a_rule_can_choose_the_form_of_its_layers) {
  const auto policy = policy_from_json(boost::json::parse(R"({"rules": [
      {"pattern": "*", "quantise": true},
      {"pattern": "*.norm1.linear", "quantise": true, "format": "int8", "weights": "channel",
       "activations": "none"}]})")
                                           .get_object(),
                                       "my.json");
  ASSERT_TRUE(policy.ok()) << policy.status().to_string();
  EXPECT_EQ(to_json(policy_from_json(to_json(*policy), "my.json").value()), to_json(*policy));
  weights::SourcePart part;
  part.tensors = {{"transformer_blocks.0.norm1.linear.weight", Shape{64, 192}, DType::kBF16},
                  {"transformer_blocks.0.attn.to_q.weight", Shape{64, 192}, DType::kBF16}};
  const auto recipe = plan_recipe(part, *policy, {.weight_grain = ScaleGrain::kTensor}).value();
  EXPECT_EQ(recipe.layers[0].weight_grain, ScaleGrain::kRow);
  EXPECT_EQ(recipe.layers[0].activations, Activations::kNone);
  EXPECT_EQ(recipe.layers[0].format, DType::kI8);
  EXPECT_EQ(recipe.layers[1].format, DType::kE4M3);
  EXPECT_EQ(recipe.layers[1].weight_grain, ScaleGrain::kTensor);
  EXPECT_EQ(recipe.layers[1].activations, Activations::kToken);
}

TEST(Policy, one_that_quantises_nothing_is_refused) {
  weights::SourcePart part;
  part.tensors = {{"proj_out.weight", Shape{64, 192}, DType::kBF16}, {"proj_out.bias", Shape{64}, DType::kBF16}};
  EXPECT_EQ(linear_layers(part), std::vector<std::string>{"proj_out"});
  EXPECT_EQ(plan_recipe(part, default_policy(), {}).status().subject(), "--policy");
  const auto recipe = plan_recipe(part, {{"proj_out", true, "asked for"}}, {.format = DType::kE5M2});
  ASSERT_TRUE(recipe.ok());
  ASSERT_EQ(recipe->layers.size(), 1u);
  EXPECT_TRUE(recipe->layers[0].quantised);
  EXPECT_EQ(recipe->layers[0].format, DType::kE5M2);
}

}  // namespace
}  // namespace octavo::quantize
