// Calibration on the embedded model: few prompts and steps, small pictures, f32, so that it is the same on every
// processor.
#include "quantize/calibrate.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "quantize/observer.h"
#include "quantize/policy.h"
#include "quantize/test_models.h"
#include "weights/export/checkpoint_source.h"

namespace octavo::quantize {
namespace {

using ::testing::HasSubstr;

const std::string kModel = std::string(OCTAVO_SOURCE_DIR) + "/models/octavo-tiny";

std::unique_ptr<pipeline::Pipeline> load(int threads) {
  pipeline::LoadOptions options;
  options.precision = pipeline::LoadOptions::Precision::kF32;
  options.threads = threads;
  auto loaded = pipeline::load_pipeline(kModel, options);
  OCTAVO_CHECK(loaded.ok(), "{}", loaded.status().to_string());
  return std::move(*loaded);
}

std::vector<Site> sites() {
  const auto source = weights::CheckpointSource::open(kModel);
  OCTAVO_CHECK(source.ok(), "{}", source.status().to_string());
  return sites_of((*source)->parts()[test::transformer_of(**source)]);
}

std::vector<PromptEntry> prompts(std::vector<std::string> texts) {
  std::vector<PromptEntry> entries;
  for (std::string& text : texts) entries.push_back({.prompt = std::move(text), .negative_prompt = "", .facts = {}});
  return entries;
}

CalibrationOptions small() {
  return {.prompts = prompts({"a red fox", "two cats", "snow"}), .steps = 2, .seed = 5, .width = 128, .height = 128};
}

Statistics run(const CalibrationOptions& options, int threads = 2) {
  auto statistics = calibrate(*load(threads), sites(), options, {});
  OCTAVO_CHECK(statistics.ok(), "{}", statistics.status().to_string());
  return std::move(*statistics);
}

TEST(Calibration, hears_every_site_in_every_step_and_branch) {
  const Statistics statistics = run(small());
  EXPECT_EQ(statistics.branches, 2);
  EXPECT_EQ(statistics.record.steps, 2);
  // Five blocks of eight inputs (attention's output counts for each stream), and the last one's five.
  EXPECT_EQ(statistics.inputs.size(), 5u * 8 + 5);
  for (const InputStatistics& input : statistics.inputs) {
    for (const float amax : input.amax) EXPECT_GT(amax, 0.0f) << input.layer;
    EXPECT_EQ(input.sample_keys.size(), kSampleRows) << input.layer;
    EXPECT_EQ(*std::max_element(input.channel_amax.begin(), input.channel_amax.end()), input.largest()) << input.layer;
    const bool text = input.layer.find("add") != std::string::npos || input.layer.find("context") != std::string::npos;
    std::int64_t counted = 0;
    for (const std::int64_t count : input.histogram) counted += count;
    // 64 image tokens, or two chunks of 77 text tokens.
    EXPECT_EQ(counted, 3 * 2 * 2 * (text ? 154 : 64) * input.channels) << input.layer;
  }
}

TEST(Calibration, is_the_same_on_any_number_of_threads) { EXPECT_EQ(run(small(), 1), run(small(), 3)); }

TEST(Calibration, goes_on_after_an_interruption_to_the_same_bits) {
  const test::TemporaryFolder folder;
  CalibrationOptions options = small();
  options.file = folder.path() / "calibration.safetensors";
  CalibrationControl control;
  control.on_progress = [&](const CalibrationProgress& progress) {
    if (progress.prompt == 1 && progress.step == 1) control.cancel.cancel();  // in the middle of the second prompt
  };
  const auto pipeline = load(2);
  const auto stopped = calibrate(*pipeline, sites(), options, control);
  EXPECT_EQ(stopped.status().code(), ErrorCode::kCancelled);
  EXPECT_THAT(stopped.status().message(), HasSubstr("after 1 of 3 prompts"));
  const auto half = Statistics::load(options.file);
  ASSERT_TRUE(half.ok()) << half.status().to_string();
  EXPECT_EQ(half->finished_prompts, 1);

  const auto whole = calibrate(*pipeline, sites(), options, {});
  ASSERT_TRUE(whole.ok()) << whole.status().to_string();
  EXPECT_EQ(*whole, run(small()));
  const auto stored = Statistics::load(options.file);
  ASSERT_TRUE(stored.ok());
  EXPECT_EQ(*stored, *whole);
  // Everything is there: not a step is run again.
  bool ran = false;
  control = {.on_progress = [&](const CalibrationProgress&) { ran = true; }};
  EXPECT_TRUE(calibrate(*pipeline, sites(), options, control).ok());
  EXPECT_FALSE(ran);
}

TEST(Calibration, a_file_of_another_calibration_is_refused) {
  const test::TemporaryFolder folder;
  CalibrationOptions options = small();
  options.prompts.resize(2);
  options.file = folder.path() / "calibration.safetensors";
  const auto pipeline = load(2);
  ASSERT_TRUE(calibrate(*pipeline, sites(), options, {}).ok());
  const auto error = [&](const CalibrationOptions& other) {
    return calibrate(*pipeline, sites(), other, {}).status().to_string();
  };
  CalibrationOptions other = options;
  other.seed = 6;
  EXPECT_THAT(error(other), HasSubstr("calibration.safetensors: holds a calibration with seed 5 instead of 6"));
  other = options;
  other.prompts[1].prompt = "three cats";
  EXPECT_THAT(error(other), HasSubstr("other prompts"));
  other = options;
  other.model_hash = "0123";
  EXPECT_THAT(error(other), HasSubstr("calibration.safetensors: holds a calibration with another model"));
  auto stored = Statistics::load(options.file);
  ASSERT_TRUE(stored.ok());
  const auto with = [&](auto&& change) {
    Statistics changed = *stored;
    change(changed.record);
    OCTAVO_CHECK(changed.save(options.file).ok(), "cannot write");
    return error(options);
  };
  EXPECT_THAT(with([](CalibrationRecord& record) { record.tokens_hash = "0123"; }), HasSubstr("other tokenizers"));
  EXPECT_THAT(with([](CalibrationRecord& record) { record.shift = 1; }), HasSubstr("shift of 1 instead of 3"));
  std::ofstream(options.file) << "not statistics";
  EXPECT_THAT(error(options), HasSubstr("calibration.safetensors"));
}

TEST(Calibration, needs_a_prompt) {
  CalibrationOptions options = small();
  options.prompts.clear();
  EXPECT_EQ(calibrate(*load(1), sites(), options, {}).status().to_string(), "--prompts: holds no prompt");
}

TEST(Calibration, built_in_prompts_are_many_and_differ) {
  auto entries = built_in_prompts();
  EXPECT_GE(entries.size(), 60u);
  std::vector<std::string> texts;
  for (const PromptEntry& entry : entries) texts.push_back(entry.prompt);
  std::sort(texts.begin(), texts.end());
  EXPECT_EQ(std::adjacent_find(texts.begin(), texts.end()), texts.end());
}

TEST(InputStatisticsOf, percentiles_are_edges_of_bins_and_never_more_than_the_largest) {
  InputStatistics input{.layer = "x", .channels = 1};
  input.amax = {1.03f, 40.0f};
  input.histogram.assign(2 * kBins, 0);
  const auto bin_of_one = static_cast<std::size_t>(-kSmallestExponent * kBinsOfOctave);
  input.histogram[bin_of_one] = 9990;                            // step 0: 1 to 1.125
  input.histogram[kBins + bin_of_one + 5 * kBinsOfOctave] = 10;  // step 1: 32 to 36
  EXPECT_EQ(bin_edge(static_cast<int>(bin_of_one)), 1.125f);
  EXPECT_EQ(input.percentile(0.998), 1.125f);
  EXPECT_EQ(input.percentile(0.9999), 36.0f);
  EXPECT_EQ(input.percentile(0.9999, 0, 1), 1.03f);
  EXPECT_EQ(input.percentile(0.9999, 1, 1), 36.0f);
}

/// A tap's tensor: [1, 1, K], all ones but one value.
void listen(Observer& observer, std::vector<float> values) {
  observer.on_tensor("transformer.transformer_blocks.0.ff.net.2.input",
                     TensorView(values.data(), DType::kF32, Shape{1, 1, static_cast<std::int64_t>(values.size())}));
}

TEST(ObserverOf, counts_magnitudes_of_bf16_and_of_any_size) {
  const Site site{.readers = {"transformer_blocks.0.ff.net.2"}, .channels = 4};
  Statistics statistics = Statistics::empty({.prompts = 1, .steps = 1}, 1, {site});
  const auto device = device::create_cpu_device(1);
  Observer observer("transformer", device->traits(), {site}, statistics);
  observer.begin_prompt(0);
  listen(observer, {0.0f, -2.0f, 1e30f, 1e-30f});
  const InputStatistics& input = statistics.inputs[0];
  EXPECT_EQ(input.channel_amax, (std::vector<float>{0.0f, 2.0f, 1e30f, 1e-30f}));
  EXPECT_EQ(input.histogram.front(), 2);
  EXPECT_EQ(input.histogram.back(), 1);
  EXPECT_EQ(input.histogram[(1 - kSmallestExponent) * kBinsOfOctave], 1);
  EXPECT_EQ(input.largest(), 1e30f);
}

}  // namespace
}  // namespace octavo::quantize
