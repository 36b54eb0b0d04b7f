#include "quantize/folding.h"

#include <gmock/gmock.h>

#include "quantize/policy.h"
#include "quantize/test_models.h"

namespace octavo::quantize {
namespace {

using ::testing::HasSubstr;

/// Powers of two from 2^-7 to 2^7, other ones for each site.
std::vector<float> some_smoothing(const std::string& site, std::int64_t channels) {
  std::uint32_t state = static_cast<std::uint32_t>(site.size() * 2654435761u + static_cast<unsigned char>(site[19]));
  std::vector<float> smooth;
  for (std::int64_t i = 0; i < channels; ++i) {
    state = state * 1664525u + 1013904223u;
    smooth.push_back(std::ldexp(1.0f, static_cast<int>(state >> 28) - 7));
  }
  return smooth;
}

/// Smooths every site that `wanted` accepts.
template <typename Wanted>
Recipe smoothed(const weights::TensorSource& source, const Wanted& wanted) {
  const weights::SourcePart& part = source.parts()[test::transformer_of(source)];
  auto recipe = plan_recipe(part, default_policy(), {});
  OCTAVO_CHECK(recipe.ok(), "{}", recipe.status().to_string());
  const auto sites = sites_of(part);
  for (LayerRecipe& layer : recipe->layers) {
    const Site* site = site_of(sites, layer.layer);
    if (site != nullptr && wanted(*site)) layer.smooth = some_smoothing(site->name(), site->channels);
  }
  return *recipe;
}

class Folding : public ::testing::TestWithParam<std::string> {};

TEST_P(Folding, every_layer_with_an_8_bit_input_is_at_one_site) {
  const weights::SyntheticSource source(test::small_sizes(GetParam()), {.dtype = DType::kF32});
  const weights::SourcePart& part = source.parts()[test::transformer_of(source)];
  const auto sites = sites_of(part);
  const Policy policy = default_policy();
  for (const std::string& layer : linear_layers(part)) {
    int count = 0;
    for (const Site& site : sites)
      count += static_cast<int>(std::count(site.readers.begin(), site.readers.end(), layer));
    // What is stored in 8 bits and multiplied in 16 has no input to smooth.
    const Decision decision = decide(policy, layer);
    EXPECT_EQ(count, decision.quantise && decision.activations != Activations::kNone ? 1 : 0) << layer;
  }
}

TEST_P(Folding, leaves_the_velocity_as_it_is) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const weights::SyntheticSource source(test::small_sizes(GetParam()), {.seed = 3, .dtype = dtype});
    const auto folded = FoldedSource::create(
        source, smoothed(source, [](const Site& site) { return site.producer != Site::Producer::kActivation; }));
    ASSERT_TRUE(folded.ok()) << folded.status().to_string();
    const auto expected = test::velocity_of(source), actual = test::velocity_of(**folded);
    // Weights keep their mantissas; what rounds is 1 + scale, 2^-24 beside values down to 2^-7.
    EXPECT_LT(test::relative_difference(actual, expected), 2e-5) << dtype_name(dtype);
    EXPECT_NE(actual, expected) << "nothing was folded";
  }
}

TEST_P(Folding, what_cannot_be_folded_comes_as_a_multiplier) {
  const weights::SyntheticSource source(test::small_sizes(GetParam()), {.dtype = DType::kBF16});
  const auto folded = FoldedSource::create(
      source, smoothed(source, [](const Site& site) { return site.producer == Site::Producer::kActivation; }));
  ASSERT_TRUE(folded.ok()) << folded.status().to_string();
  const std::string layer = "transformer_blocks.1.ff_context.net.2";
  const std::vector<float> multiplier = (*folded)->multiplier(layer);
  const auto before = test::values_of(source, layer + ".weight"), after = test::values_of(**folded, layer + ".weight");
  ASSERT_FALSE(multiplier.empty());
  for (std::size_t i = 0; i < before.size(); ++i) {
    ASSERT_EQ(after[i] * multiplier[i % multiplier.size()], before[i]) << i;
  }
  EXPECT_TRUE((*folded)->multiplier("transformer_blocks.1.attn.to_q").empty());
}

TEST_P(Folding, can_be_undone) {
  const weights::SyntheticSource source(test::small_sizes(GetParam()), {.seed = 4, .dtype = DType::kF32});
  const auto every = [](const Site&) { return true; };
  Recipe recipe = smoothed(source, every);
  const auto folded = FoldedSource::create(source, recipe);
  ASSERT_TRUE(folded.ok());
  for (LayerRecipe& layer : recipe.layers) {
    for (float& value : layer.smooth) value = 1.0f / value;
  }
  const auto unfolded = FoldedSource::create(**folded, recipe);
  ASSERT_TRUE(unfolded.ok());
  for (const auto& tensor : source.parts()[test::transformer_of(source)].tensors) {
    const auto before = test::values_of(source, tensor.name), after = test::values_of(**unfolded, tensor.name);
    EXPECT_LT(test::relative_difference(after, before), 1e-5) << tensor.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Folding, ::testing::Values("tiny", "medium"),
                         [](const auto& param) { return param.param; });

TEST(FoldingOf, biases_of_scales_are_f32_and_all_else_keeps_its_type) {
  const weights::SyntheticSource source(test::small_sizes("tiny"), {.dtype = DType::kBF16});
  const auto folded = FoldedSource::create(source, smoothed(source, [](const Site&) { return true; }));
  ASSERT_TRUE(folded.ok());
  for (const auto& tensor : (*folded)->parts()[test::transformer_of(source)].tensors) {
    const bool modulation_bias = tensor.name.find("norm1") != std::string::npos && tensor.name.ends_with(".bias");
    EXPECT_EQ(tensor.dtype, modulation_bias ? DType::kF32 : DType::kBF16) << tensor.name;
  }
}

TEST(FoldingOf, wrong_smoothing_is_refused_by_layer) {
  const weights::SyntheticSource source(test::small_sizes("tiny"), {.dtype = DType::kBF16});
  const Recipe good = smoothed(source, [](const Site&) { return true; });
  const auto error = [&](const std::string& layer, auto&& change) {
    Recipe recipe = good;
    for (LayerRecipe& one : recipe.layers) {
      if (one.layer == layer) change(one.smooth);
    }
    return FoldedSource::create(source, recipe).status().to_string();
  };
  EXPECT_THAT(error("transformer_blocks.0.ff.net.2", [](auto& smooth) { smooth.pop_back(); }),
              HasSubstr("transformer_blocks.0.ff.net.2: is smoothed by 767 numbers, its input has 768"));
  EXPECT_THAT(error("transformer_blocks.0.ff.net.2", [](auto& smooth) { smooth[3] = 3.0f; }),
              HasSubstr("no power of two"));
  EXPECT_THAT(error("transformer_blocks.0.attn.to_k", [](auto& smooth) { smooth[3] *= 2.0f; }),
              HasSubstr("which reads the same input"));
  EXPECT_THAT(error("proj_out", [](auto& smooth) { smooth.assign(192, 2.0f); }),
              HasSubstr("proj_out: cannot be smoothed"));
}

TEST(FoldingOf, powers_of_two_are_nearest_by_ratio) {
  EXPECT_EQ(nearest_power_of_two(1.4f), 1.0f);
  EXPECT_EQ(nearest_power_of_two(1.42f), 2.0f);
  EXPECT_EQ(nearest_power_of_two(0.26f), 0.25f);
}

}  // namespace
}  // namespace octavo::quantize
