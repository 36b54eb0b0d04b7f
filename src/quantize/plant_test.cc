#include "quantize/plant.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "quantize/folding.h"
#include "quantize/observer.h"
#include "quantize/test_models.h"

namespace octavo::quantize {
namespace {

TEST(Plant, the_model_computes_what_it_did_with_channels_that_stand_out) {
  for (const char* family : {"tiny", "medium"}) {
    const weights::SyntheticSource source(test::small_sizes(family), {.seed = 6, .dtype = DType::kF32});
    const weights::SourcePart& part = source.parts()[test::transformer_of(source)];
    const auto recipe = plant_recipe(part, {.channels = 3, .factor = 1024});
    ASSERT_TRUE(recipe.ok()) << recipe.status().to_string();
    const auto planted = FoldedSource::create(source, *recipe);
    ASSERT_TRUE(planted.ok()) << planted.status().to_string();

    const auto sites = sites_of(part);
    Statistics statistics = Statistics::empty({.prompts = 1, .steps = 1}, 2, sites);
    const auto device = device::create_cpu_device(1);
    Observer observer("transformer", device->traits(), sites, statistics);
    observer.begin_prompt(0);
    const auto actual = test::velocity_of(**planted, &observer);
    EXPECT_LT(test::relative_difference(actual, test::velocity_of(source)), 1e-5) << family;
    for (const Site& site : sites) {
      std::vector<float> amax = statistics.of(site).front()->channel_amax;
      std::sort(amax.begin(), amax.end());
      const float median = amax[amax.size() / 2];
      const auto outliers = std::count_if(amax.begin(), amax.end(), [&](float value) { return value > 40 * median; });
      EXPECT_EQ(outliers, site.producer == Site::Producer::kActivation ? 0 : 3) << family << " " << site.name();
    }
  }
}

TEST(Plant, depends_on_the_seed_alone) {
  const weights::SyntheticSource source(test::small_sizes("tiny"), {});
  const weights::SourcePart& part = source.parts()[test::transformer_of(source)];
  EXPECT_EQ(*plant_recipe(part, {.seed = 1}), *plant_recipe(part, {.seed = 1}));
  EXPECT_NE(*plant_recipe(part, {.seed = 1}), *plant_recipe(part, {.seed = 2}));
  EXPECT_EQ(plant_recipe(part, {.channels = 0}).status().subject(), "--channels");
  EXPECT_EQ(plant_recipe(part, {.factor = 1}).status().subject(), "--factor");
}

}  // namespace
}  // namespace octavo::quantize
