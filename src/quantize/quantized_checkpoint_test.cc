#include "quantize/quantized_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <map>
#include <set>

#include "quantize/policy.h"
#include "quantize/test_models.h"

namespace octavo::quantize {
namespace {

using ::testing::HasSubstr;

class QuantizedCheckpointTest : public ::testing::Test {
 protected:
  QuantizedCheckpointTest() : source_(test::small_sizes("medium"), {.dtype = DType::kBF16}) {
    recipe_ = plan_recipe(transformer(), default_policy(), {}).value();
  }
  const weights::SourcePart& transformer() const { return source_.parts()[test::transformer_of(source_)]; }
  LayerRecipe& layer(const std::string& name) {
    for (LayerRecipe& one : recipe_.layers) {
      if (one.layer == name) return one;
    }
    OCTAVO_CHECK(false, "no layer {}", name);
  }
  Result<weights::ExportPlan> plan(bool t5 = true) const {
    QuantizedCheckpoint checkpoint{.tool = "octavo test",
                                   .source = {.model = "medium", .hash = std::string(64, 'a')},
                                   .recipe = &recipe_,
                                   .quantize_t5 = t5};
    checkpoint.multiplier = [](std::string_view name) {
      return name == "transformer_blocks.0.ff.net.2" ? std::vector<float>(512, 0.5f) : std::vector<float>();
    };
    return plan_quantized_checkpoint(source_.parts(), checkpoint);
  }
  static std::set<std::string> names_in(const weights::ExportPlan& plan, const std::string& folder) {
    std::set<std::string> names;
    for (const auto& file : plan.files) {
      if (!file.path.starts_with(folder + "/")) continue;
      for (const auto& tensor : file.tensors) names.insert(tensor.stored.name + " " + tensor.stored.dtype);
    }
    return names;
  }
  static weights::QuantizationProvenance provenance_in(const weights::ExportPlan& plan, const std::string& folder) {
    for (const auto& file : plan.files) {
      if (!file.path.starts_with(folder + "/")) continue;
      const auto text = file.metadata.find(std::string(weights::kProvenanceMetadata));
      OCTAVO_CHECK(text != file.metadata.end(), "{} says nothing", file.path);
      return weights::parse_provenance(text->second, file.path).value();
    }
    OCTAVO_CHECK(false, "no file in {}", folder);
  }

  const weights::SyntheticSource source_;
  Recipe recipe_;
};

TEST_F(QuantizedCheckpointTest, the_default_recipe_keeps_what_is_no_product_of_a_block) {
  const auto written = plan();
  ASSERT_TRUE(written.ok()) << written.status().to_string();
  const auto names = names_in(*written, "transformer");
  EXPECT_TRUE(names.contains("transformer_blocks.0.attn.to_q.weight F8_E4M3"));
  EXPECT_TRUE(names.contains("transformer_blocks.0.attn.to_q.weight_scale F32"));
  EXPECT_TRUE(names.contains("transformer_blocks.0.ff.net.2.input_multiplier F32"));
  EXPECT_TRUE(names.contains("transformer_blocks.0.norm1.linear.weight I8"));
  EXPECT_TRUE(names.contains("norm_out.linear.weight BF16"));
  EXPECT_EQ(provenance_in(*written, "transformer").activations_of("transformer_blocks.0.norm1.linear"),
            weights::ActivationForm::kNone);
  EXPECT_TRUE(names.contains("pos_embed.pos_embed BF16"));
  EXPECT_TRUE(names_in(*written, "text_encoder_3").contains("shared.weight F8_E4M3"));
  EXPECT_TRUE(names_in(*written, "text_encoder_3")
                  .contains("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight BF16"));
  EXPECT_EQ(provenance_in(*written, "transformer").activations, weights::ActivationForm::kToken);
  EXPECT_EQ(provenance_in(*written, "text_encoder_3").activations, weights::ActivationForm::kNone);
  EXPECT_FALSE(names_in(*written, "vae").contains("decoder.conv_in.weight F8_E4M3"));
}

TEST_F(QuantizedCheckpointTest, t5_can_stay_as_it_is) {
  const auto written = plan(false).value();
  for (const auto& file : written.files) {
    EXPECT_EQ(file.metadata.contains(std::string(weights::kProvenanceMetadata)), file.path.starts_with("transformer/"))
        << file.path;
  }
}

TEST_F(QuantizedCheckpointTest, every_form_of_activations_has_its_word_in_the_file) {
  for (const Activations activations :
       {Activations::kToken, Activations::kStatic, Activations::kBlock, Activations::kNone}) {
    recipe_.activations = activations;
    for (LayerRecipe& one : recipe_.layers) {
      if (one.format == DType::kI8) continue;  // modulations: activations none, whatever the others have
      one.activations = activations;
      one.static_amax = 224.0f;
    }
    const auto written = plan();
    ASSERT_TRUE(written.ok()) << written.status().to_string();
    const auto provenance = provenance_in(*written, "transformer");
    EXPECT_EQ(weights::activation_form_word(provenance.activations), activations_word(activations));
    EXPECT_EQ(provenance.exceptions.size(), activations == Activations::kNone ? 0u : 6u);
    EXPECT_EQ(names_in(*written, "transformer").contains("transformer_blocks.0.attn.to_q.input_scale F32"),
              activations == Activations::kStatic);
  }
}

TEST_F(QuantizedCheckpointTest, a_layer_that_differs_is_an_exception_and_changes_the_hash) {
  const std::string before = provenance_in(plan().value(), "transformer").layers_hash;
  LayerRecipe& embedder = layer("context_embedder");
  embedder.quantised = true;
  embedder.activations = Activations::kNone;
  const auto provenance = provenance_in(plan().value(), "transformer");
  EXPECT_EQ(provenance.activations_of("context_embedder"), weights::ActivationForm::kNone);
  EXPECT_EQ(provenance.activations_of("transformer_blocks.0.attn.to_q"), weights::ActivationForm::kToken);
  EXPECT_NE(provenance.layers_hash, before);
}

TEST_F(QuantizedCheckpointTest, the_report_says_layer_by_layer_what_and_why) {
  layer("transformer_blocks.0.ff.net.2").outliers = {5, 17};
  const auto written = plan().value();
  const auto report = boost::json::parse(written.texts.at("transformer/quantization.json"));
  EXPECT_EQ(report.at("format_version").as_int64(), weights::kProvenanceVersion);
  EXPECT_EQ(report.at("layers").as_array().size(), recipe_.layers.size());
  for (const auto& entry : report.at("layers").as_array()) {
    EXPECT_FALSE(entry.at("reason").as_string().empty());
    if (entry.at("layer").as_string() != "transformer_blocks.0.ff.net.2") continue;
    EXPECT_EQ(entry.at("outliers"), (boost::json::array{5, 17}));
  }
}

TEST_F(QuantizedCheckpointTest, what_cannot_be_written_is_named) {
  const Recipe good = recipe_;
  const auto refused = [this](const std::string& name) {
    const auto written = plan();
    EXPECT_FALSE(written.ok());
    if (written.ok()) return std::string();
    EXPECT_EQ(written.status().subject(), name);
    return written.status().message();
  };
  recipe_.layers[0].layer = "transformer_blocks.9.attn.to_q";
  recipe_.layers[0].quantised = true;
  EXPECT_THAT(refused("transformer_blocks.9.attn.to_q"), HasSubstr("no matrix"));
  recipe_ = good;
  layer("transformer_blocks.0.attn.to_q").activations = Activations::kStatic;
  EXPECT_THAT(refused("transformer_blocks.0.attn.to_q"), HasSubstr("not calibrated"));
  recipe_ = good;
  layer("transformer_blocks.0.attn.to_q").outliers = {7, 7};
  EXPECT_THAT(refused("transformer_blocks.0.attn.to_q"), HasSubstr("outlier 7"));
  recipe_ = good;
  layer("transformer_blocks.0.attn.to_q").activation_format = DType::kE5M2;
  EXPECT_THAT(refused("transformer_blocks.0.attn.to_q"), HasSubstr("another format"));
  recipe_ = good;
  layer("transformer_blocks.0.attn.to_q").format = DType::kI8;
  EXPECT_THAT(refused("transformer_blocks.0.attn.to_q"), HasSubstr("int8 weights and e4m3 inputs"));
  recipe_ = good;
  layer("transformer_blocks.0.attn.to_k").weight_grain = ScaleGrain::kBlock128;
  EXPECT_THAT(refused("--policy"), HasSubstr("to_k read one input"));
  recipe_ = good;
  for (LayerRecipe& one : recipe_.layers) one.quantised = false;
  EXPECT_THAT(refused("--policy"), HasSubstr("16 bits"));
}

TEST_F(QuantizedCheckpointTest, sizes_add_up) {
  const auto written = plan().value();
  const auto sizes = part_sizes(source_.parts(), written);
  ASSERT_EQ(sizes.back().part, "total");
  std::size_t before = 0, after = 0;
  for (std::size_t i = 0; i + 1 < sizes.size(); ++i) {
    before += sizes[i].before;
    after += sizes[i].after;
    EXPECT_TRUE(sizes[i].part != "vae" || sizes[i].before == sizes[i].after);
  }
  EXPECT_EQ(sizes.back().before, before);
  EXPECT_EQ(sizes.back().after, after);
  EXPECT_LT(after, before);
}

// Sizes need no values: the bounds that the default recipe is made for, on the released model's shapes.
TEST(QuantizedSizes, full_size_large_is_half_of_its_16_bits) {
  const weights::SyntheticSource source(weights::model_sizes("large", {}, {}).value(), {.dtype = DType::kBF16});
  const auto sizes_with = [&source](const Policy& policy) {
    const Recipe recipe = plan_recipe(source.parts()[test::transformer_of(source)], policy, {}).value();
    const QuantizedCheckpoint checkpoint{.tool = "octavo test", .recipe = &recipe};
    const auto plan = plan_quantized_checkpoint(source.parts(), checkpoint);
    OCTAVO_CHECK(plan.ok(), "{}", plan.status().to_string());
    std::map<std::string, std::pair<std::size_t, std::size_t>> sizes;
    for (const PartSize& size : part_sizes(source.parts(), *plan)) sizes[size.part] = {size.before, size.after};
    return sizes;
  };
  const auto sizes = sizes_with(default_policy());
  EXPECT_EQ(sizes.at("transformer").first, 16'292'561'536u);
  EXPECT_LE(sizes.at("transformer").second, 8'300'000'000u);
  EXPECT_EQ(sizes.at("text_encoder_3").first, 9'524'621'312u);
  EXPECT_LE(sizes.at("text_encoder_3").second, 4'800'000'000u);
  Policy modulations_in_16_bits = default_policy();
  modulations_in_16_bits.push_back({"transformer_blocks.*.norm1*.linear", false, "for comparison"});
  EXPECT_GT(sizes_with(modulations_in_16_bits).at("transformer").second, 10'900'000'000u);
}

TEST(CheckNotQuantized, weights_of_8_bits_are_named_and_the_rest_is_not_looked_at) {
  std::vector<weights::SourcePart> parts = {{weights::Part::kTransformer, "{}", {}}};
  parts[0].tensors.push_back({"norm.weight", Shape{4}, DType::kE4M3});
  EXPECT_TRUE(check_not_quantized(parts, "model").ok());
  parts[0].tensors.push_back({"proj_out.weight", Shape{4, 4}, DType::kE5M2});
  const Status status = check_not_quantized(parts, "model");
  EXPECT_EQ(status.code(), ErrorCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("proj_out.weight is e5m2"));
}

}  // namespace
}  // namespace octavo::quantize
