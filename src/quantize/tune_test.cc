#include "quantize/tune.h"

#include <gmock/gmock.h>

#include <cmath>

#include "quantize/folding.h"
#include "quantize/observer.h"
#include "quantize/policy.h"
#include "quantize/test_models.h"

namespace octavo::quantize {
namespace {

using ::testing::HasSubstr;

/// A synthetic model with what calibration would see of it: one forward of two rows.
class Calibrated {
 public:
  explicit Calibrated(int planted, const std::string& family = "medium")
      : source_(test::small_sizes(family), {.seed = 11, .outliers = planted, .dtype = DType::kBF16}),
        sites_(sites_of(part())),
        statistics_(Statistics::empty({.prompts = 1, .steps = 1}, 2, sites_)),
        device_(device::create_cpu_device(1)) {
    Observer observer("transformer", device_->traits(), sites_, statistics_);
    observer.begin_prompt(0);
    test::velocity_of(source_, &observer);
  }
  const weights::SourcePart& part() const { return source_.parts()[test::transformer_of(source_)]; }
  const weights::TensorSource& source() const { return source_; }
  const Statistics& statistics() const { return statistics_; }

  const std::vector<Site>& sites() const { return sites_; }
  Statistics& statistics() { return statistics_; }
  InputStatistics& input(const std::string& layer) {
    for (InputStatistics& one : statistics_.inputs) {
      if (one.layer == layer) return one;
    }
    OCTAVO_CHECK(false, "nobody heard {}", layer);
  }

  Recipe tuned(const RecipeOptions& planned, const TuneOptions& options) const {
    auto recipe = plan_recipe(part(), default_policy(), planned);
    OCTAVO_CHECK(recipe.ok(), "{}", recipe.status().to_string());
    const Status status = tune(*recipe, source_, sites_, statistics_, options);
    OCTAVO_CHECK(status.ok(), "{}", status.to_string());
    return *recipe;
  }

 private:
  weights::SyntheticSource source_;
  std::vector<Site> sites_;
  Statistics statistics_;
  std::unique_ptr<device::Device> device_;
};

/// Mean output error of the quantised layers, as SQNR in dB.
double sqnr(const Recipe& recipe) {
  double error = 0;
  int count = 0;
  for (const LayerRecipe& layer : recipe.layers) {
    if (!layer.quantised) continue;
    error += layer.output_error;
    ++count;
  }
  return -10 * std::log10(error / count);
}

constexpr RecipeOptions kChannelToken{};
constexpr RecipeOptions kTensorStatic{.weight_grain = ScaleGrain::kTensor, .activations = Activations::kStatic};
constexpr RecipeOptions kInt8ChannelToken{.format = DType::kI8, .activation_format = DType::kI8};

TEST(Tune, smoothing_and_splitting_rescue_int8_from_planted_outliers) {
  const Calibrated model(2);
  const double plain = sqnr(model.tuned(kInt8ChannelToken, {}));
  EXPECT_LT(plain, 10.0);
  EXPECT_GT(sqnr(model.tuned(kInt8ChannelToken, {.smooth_alpha = 0.5})), 35.0);
  EXPECT_GT(sqnr(model.tuned(kInt8ChannelToken, {.outliers = 4})), 30.0);
}

TEST(Tune, an_fp8_format_hardly_needs_them) {
  const Calibrated planted(2), ordinary(0);
  const double expected = sqnr(ordinary.tuned(kTensorStatic, {}));
  EXPECT_GT(sqnr(planted.tuned(kTensorStatic, {})), expected - 2.0) << "E4M3 reaches from 2^-9 to 448";
  for (const TuneOptions& options : {TuneOptions{.smooth_alpha = 0.5}, TuneOptions{.outliers = 4}}) {
    EXPECT_GT(sqnr(planted.tuned(kTensorStatic, options)), expected - 0.3);
  }
}

TEST(Tune, neither_costs_anything_where_no_channel_stands_out) {
  const Calibrated model(0);
  for (const RecipeOptions& planned : {kChannelToken, kTensorStatic, kInt8ChannelToken}) {
    const double plain = sqnr(model.tuned(planned, {}));
    EXPECT_GT(sqnr(model.tuned(planned, {.smooth_alpha = 0.5})), plain - 0.1);
    const Recipe split = model.tuned(planned, {.outliers = 4});
    EXPECT_EQ(sqnr(split), plain);
    for (const LayerRecipe& layer : split.layers) EXPECT_TRUE(layer.outliers.empty()) << layer.layer;
  }
}

TEST(Tune, who_reads_one_input_agrees_on_it_in_16_bits_too) {
  const Calibrated model(2);
  auto recipe = plan_recipe(model.part(), {{"*", true, ""}, {"*.to_k", false, "kept"}, {"*norm*", false, ""}},
                            {.format = DType::kI8, .activation_format = DType::kI8});
  ASSERT_TRUE(recipe.ok());
  for (LayerRecipe& layer : recipe->layers) {
    if (!site_of(sites_of(model.part()), layer.layer)) layer.quantised = false;
  }
  ASSERT_TRUE(tune(*recipe, model.source(), sites_of(model.part()), model.statistics(), {.smooth_alpha = 0.5}).ok());
  const LayerRecipe* q = recipe->find("transformer_blocks.0.attn.to_q");
  const LayerRecipe* k = recipe->find("transformer_blocks.0.attn.to_k");
  EXPECT_FALSE(q->smooth.empty());
  EXPECT_EQ(q->smooth, k->smooth);
  EXPECT_FALSE(k->quantised);
  EXPECT_TRUE(FoldedSource::create(model.source(), *recipe).ok());
}

TEST(Tune, split_channels_are_those_that_stand_out_and_no_more_than_asked_for) {
  const Calibrated model(3);
  const auto split = [&](int most) {
    return model.tuned(kInt8ChannelToken, {.outliers = most}).find("transformer_blocks.2.ff.net.0.proj")->outliers;
  };
  EXPECT_EQ(split(16).size(), 3u);
  EXPECT_EQ(split(2).size(), 2u);
  const std::vector<int> all = split(16);
  EXPECT_TRUE(std::is_sorted(all.begin(), all.end()));
}

TEST(Tune, reasons_say_what_was_measured) {
  const Calibrated model(2);
  const std::string reason =
      model.tuned(kTensorStatic, {.smooth_alpha = 0.5, .outliers = 4}).find("transformer_blocks.0.ff.net.2")->reason;
  EXPECT_THAT(reason, HasSubstr("feed-forward products; output SQNR "));
  EXPECT_THAT(reason, HasSubstr("static scale from "));
  EXPECT_THAT(reason, HasSubstr("over the steps"));
  EXPECT_THAT(reason, HasSubstr("times the median"));
}

constexpr const char* kSecondProduct = "transformer_blocks.0.ff.net.2";

TEST(Tune, clips_no_more_than_a_quarter_of_an_input_that_the_sample_does_not_show) {
  Calibrated model(0);
  InputStatistics& input = model.input(kSecondProduct);
  const float before = input.largest();
  input.amax.front() = input.channel_amax.front() = 1e6f * before;  // neither in the sample nor in the histogram
  const Recipe recipe = model.tuned(kTensorStatic, {});
  EXPECT_EQ(recipe.find(kSecondProduct)->static_amax, 1e6f * before / 4);
  EXPECT_THAT(recipe.find(kSecondProduct)->reason, HasSubstr("static scale from largest input / 4"));
}

TEST(Tune, an_input_of_zeros_has_a_static_scale_too) {
  Calibrated model(0);
  InputStatistics& input = model.input(kSecondProduct);
  std::fill(input.amax.begin(), input.amax.end(), 0.0f);
  std::fill(input.channel_amax.begin(), input.channel_amax.end(), 0.0f);
  std::fill(input.sample.begin(), input.sample.end(), to_bfloat16(0.0f));
  EXPECT_EQ(model.tuned(kTensorStatic, {.smooth_alpha = 0.5, .outliers = 4}).find(kSecondProduct)->static_amax, 1.0f);
}

TEST(Tune, a_site_whose_later_layer_alone_is_static_gets_a_scale) {
  const Calibrated model(0);
  auto recipe = plan_recipe(model.part(), default_policy(), kChannelToken);
  ASSERT_TRUE(recipe.ok());
  EXPECT_EQ(recipe->find_static(), nullptr);
  const std::string name = "transformer_blocks.0.attn.to_v";
  for (LayerRecipe& layer : recipe->layers) {
    if (layer.layer == name) layer.activations = Activations::kStatic;
  }
  EXPECT_EQ(recipe->find_static(), recipe->find(name));
  ASSERT_TRUE(tune(*recipe, model.source(), model.sites(), model.statistics(), {}).ok());
  EXPECT_GT(recipe->find(name)->static_amax, 0.0f);
}

TEST(Tune, attentions_output_is_judged_stream_by_stream) {
  Calibrated model(0);
  const std::string image = "transformer_blocks.0.attn.to_out.0", text = "transformer_blocks.0.attn.to_add_out";
  const double before = model.tuned(kChannelToken, {}).find(image)->output_error;
  for (BFloat16& value : model.input(text).sample) value = to_bfloat16(448.0f);  // no error of the input at all
  const Recipe recipe = model.tuned(kChannelToken, {});
  EXPECT_EQ(recipe.find(image)->output_error, before);
  EXPECT_NE(recipe.find(text)->output_error, before);
}

TEST(Tune, refuses_static_activations_that_nobody_listens_to) {
  const Calibrated model(0);
  auto recipe = plan_recipe(model.part(), default_policy(), kTensorStatic);
  ASSERT_TRUE(recipe.ok());
  EXPECT_TRUE(check_tunable(*recipe, model.sites()).ok());
  for (LayerRecipe& layer : recipe->layers) layer.quantised = true;
  EXPECT_THAT(check_tunable(*recipe, model.sites()).to_string(), HasSubstr(": cannot have static activations"));
}

TEST(LayerError, is_nothing_for_values_that_codes_hold) {
  const InputSample input{.rows = 2, .channels = 4, .values = {448, 2, 4, -8, 0.5, 448, 16, 1}};
  const WeightSample weight{.rows = 1, .channels = 4, .values = {1, -448, 2, 0.25}, .channel_amax = {1, 448, 2, 0.25}};
  LayerRecipe recipe{.layer = "x", .quantised = true};
  EXPECT_EQ(output_error(recipe, input, weight), 0.0);
  // One scale for all that is 448 times too large: what is small becomes nothing.
  recipe.activations = Activations::kStatic;
  recipe.static_amax = 448.0f * 448.0f * 448.0f * 448.0f;
  EXPECT_EQ(output_error(recipe, input, weight), 1.0);
  // A column that is split off does not care.
  recipe.outliers = {0, 1, 2, 3};
  EXPECT_EQ(output_error(recipe, input, weight), 0.0);
}

}  // namespace
}  // namespace octavo::quantize
