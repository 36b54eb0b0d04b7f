#include "quantize/buy_back.h"

#include <gmock/gmock.h>

#include "quantize/policy.h"
#include "quantize/test_models.h"

namespace octavo::quantize {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class BuyBack : public ::testing::Test {
 protected:
  BuyBack()
      : source_(test::small_sizes("tiny"), {}),
        part_(source_.parts()[test::transformer_of(source_)]),
        sites_(sites_of(part_)),
        recipe_(*plan_recipe(part_, default_policy(), {})) {}
  std::vector<Purchase> purchases() const { return purchases_of(recipe_, sites_, part_); }

  weights::SyntheticSource source_;
  const weights::SourcePart& part_;
  std::vector<Site> sites_;
  Recipe recipe_;
};

TEST_F(BuyBack, products_are_bought_whole) {
  const auto all = purchases();
  EXPECT_EQ(all.size(), 5u * 8 + 5);
  EXPECT_THAT(all.front().layers, ElementsAre("transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k",
                                              "transformer_blocks.0.attn.to_v"));
  EXPECT_EQ(all.front().bytes, 3u * 192 * 192);
}

TEST_F(BuyBack, the_most_error_a_byte_goes_first_and_what_does_not_fit_is_passed_over) {
  auto all = purchases();
  for (Purchase& purchase : all) purchase.velocity_error = 1e-9;
  const auto find = [&](const std::string& layer) -> Purchase& {
    return *std::find_if(all.begin(), all.end(), [&](const Purchase& one) { return one.layers.front() == layer; });
  };
  const std::string big = "transformer_blocks.0.ff.net.2", small = "transformer_blocks.3.attn.to_out.0",
                    smaller = "transformer_blocks.4.attn.to_add_out";
  find(big).velocity_error = 0.04;    // 4 * 192 * 192 bytes
  find(small).velocity_error = 0.02;  // 192 * 192 bytes: more a byte
  find(smaller).velocity_error = 0.001;
  for (LayerRecipe& layer : recipe_.layers) {
    if (layer.layer == big) layer.smooth.assign(768, 2.0f);
    if (layer.layer == small) layer.outliers = {1};
  }
  buy_back(recipe_, all, 2 * 192 * 192);
  EXPECT_EQ(find(small).rank, 1u);
  EXPECT_EQ(find(big).rank, 2u);
  EXPECT_FALSE(recipe_.find(small)->quantised);
  EXPECT_TRUE(recipe_.find(small)->outliers.empty());
  EXPECT_TRUE(recipe_.find(big)->quantised) << "it does not fit any more";
  EXPECT_FALSE(recipe_.find(smaller)->quantised) << "it does";
  EXPECT_THAT(recipe_.find(small)->reason, HasSubstr("bought back for 36864 bytes: "));
  EXPECT_THAT(recipe_.find(small)->reason,
              HasSubstr("rank 1 of 45 by error a byte; alone in 8 bits: velocity SQNR 17.0 dB"));
  EXPECT_EQ(recipe_.policy, "auto");
}

TEST_F(BuyBack, alone_leaves_one_product_in_8_bits_and_no_multiplier_without_one) {
  for (LayerRecipe& layer : recipe_.layers) {
    if (layer.quantised) layer.smooth.assign(layer.layer.ends_with(".net.2") ? 768 : 192, 2.0f);
  }
  const Recipe one = alone(recipe_, {"transformer_blocks.1.ff.net.2"});
  for (const LayerRecipe& layer : one.layers) {
    EXPECT_EQ(layer.quantised, layer.layer == "transformer_blocks.1.ff.net.2") << layer.layer;
  }
  EXPECT_FALSE(one.find("transformer_blocks.1.ff.net.2")->smooth.empty());
  EXPECT_TRUE(one.find("transformer_blocks.2.ff.net.2")->smooth.empty());
  EXPECT_FALSE(one.find("transformer_blocks.2.ff.net.0.proj")->smooth.empty());
}

TEST_F(BuyBack, budgets_are_bytes_or_a_share) {
  const auto all = purchases();
  EXPECT_EQ(*parse_budget("1500000", all), 1500000u);
  EXPECT_EQ(*parse_budget("1.5M", all), 1500000u);
  std::size_t total = 0;
  for (const Purchase& purchase : all) total += purchase.bytes;
  EXPECT_EQ(*parse_budget("50%", all), total / 2);
  for (const char* wrong : {"", "many", "-1", "5 %", "1T", "nan"}) {
    EXPECT_EQ(parse_budget(wrong, all).status().subject(), "--budget") << wrong;
  }
}

}  // namespace
}  // namespace octavo::quantize
