// What becomes of figures: means that know of infinity, axes, files between the models, and the two reports.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cmath>
#include <filesystem>
#include <limits>

#include "quantize/compare/comparison.h"
#include "quantize/compare/line_chart.h"
#include "quantize/compare/report_html.h"
#include "quantize/compare/report_json.h"
#include "quantize/compare/run_files.h"

namespace octavo::quantize {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(Spread, infinite_values_are_identical_and_in_no_mean) {
  const Spread spread = spread_of({30, kInfinity, 10, kInfinity}, Better::kHigher);
  EXPECT_EQ(spread.mean, 20);
  EXPECT_EQ(spread.worst, 10);
  EXPECT_EQ(spread.identical, 2u);
  EXPECT_EQ(spread.count, 4u);
  EXPECT_EQ(spread_of({0.1, 0.3}, Better::kLower).worst, 0.3);
  EXPECT_EQ(spread_of({kInfinity}, Better::kHigher).mean, kInfinity);
  EXPECT_EQ(spread_of({kInfinity}, Better::kHigher).worst, kInfinity);
  EXPECT_TRUE(std::isnan(spread_of({}, Better::kLower).mean));
}

TEST(AxisTicks, are_round_and_few) {
  EXPECT_THAT(axis_ticks(0, 10, 7), ElementsAre(0, 2, 4, 6, 8, 10));
  EXPECT_THAT(axis_ticks(-1.2, 1.2, 4), ElementsAre(-1, 0, 1));
  EXPECT_THAT(axis_ticks(31, 149, 7), ElementsAre(40, 60, 80, 100, 120, 140));
  EXPECT_THAT(axis_ticks(5, 5, 7), ElementsAre(5));
  for (const double top : {1e-6, 0.3, 7.0, 123456.0}) EXPECT_LE(axis_ticks(0, top, 7).size(), 7u);
}

TEST(LineChart, gaps_break_the_line_and_nothing_is_said_so) {
  LineChart chart{
      .title = "<t>", .x_label = "x", .y_label = "y", .series = {{"a & b", "b", {1, kInfinity, 3, 4}}}, .x_names = {}};
  const std::string drawn = svg(chart);
  EXPECT_THAT(drawn, HasSubstr("a &amp; b"));
  EXPECT_THAT(drawn, HasSubstr("<title>&lt;t&gt;</title>"));
  EXPECT_THAT(drawn, Not(HasSubstr("inf")));
  const std::size_t line = drawn.find(" d=\"M");
  EXPECT_NE(drawn.substr(line, drawn.find("\"/>", line) - line).find('M', 5), std::string::npos);  // drawn in two parts
  chart.series[0].values = {kInfinity, kInfinity};
  EXPECT_THAT(svg(chart), HasSubstr("no difference to draw"));
  chart.series.clear();
  EXPECT_THAT(svg(chart), HasSubstr("no difference to draw"));
}

/// A comparison of two pictures, as compare_models() leaves it, with a work folder of its own.
class ReportTest : public ::testing::Test {
 protected:
  void SetUp() override {
    work_ = fs::path(::testing::TempDir()) /
            (std::string("octavo_") + ::testing::UnitTest::GetInstance()->current_test_info()->name());
    for (const char* run : {"a", "f32", "bf16", "b"}) {
      fs::create_directories(work_ / run);
      for (const char* index : {"0", "1"}) {
        image::Image picture{16, 16, 3, {}};
        picture.pixels.assign(picture.byte_count(), static_cast<std::uint8_t>(run[0]));
        ASSERT_TRUE(write_end(work_ / run / (std::string(index) + ".end"), {{1, 2}, picture}).ok());
      }
    }
    const CallError equal{0, 1.0f, {kInfinity, 1, 0}}, apart{1, 0.5f, {20, 0.99, 0.1}};
    const PictureErrors near{{equal, equal}, {kInfinity, 1, 0}, kInfinity, 1, 0};
    const PictureErrors far{{equal, apart}, {15, 0.98, 0.2}, 25, 0.9, 0.3};
    comparison_.work = comparison_.baseline = work_;
    comparison_.prompts.entries = {{"a plain wall", "", {}},
                                   {"</h3><script>alert('x')</script><img src=//example.org/x> & \"more\"", "<b>", {}}};
    comparison_.prompts.hash = "abc";
    comparison_.pictures = {{0, 5, near, near}, {1, 5, far, near}};
    comparison_.a.name = comparison_.b.name = "tiny<1>";
    comparison_.a.arithmetic = "f32";
    comparison_.b.arithmetic = "fp8";
    comparison_.b.quantization = boost::json::parse(R"({"tool": "<octavo>", "layers": [1, 2]})");
    comparison_.request.width = comparison_.request.height = 16;
  }
  void TearDown() override { fs::remove_all(work_); }

  fs::path work_;
  Comparison comparison_;
};

TEST_F(ReportTest, html_shows_hostile_text_as_text_and_fetches_nothing) {
  const auto page = report_html(comparison_, {.tool = "octavo 0", .most_pictures = 24, .accuracy = {}});
  ASSERT_TRUE(page.ok()) << page.status().to_string();
  EXPECT_THAT(*page, Not(HasSubstr("<script")));
  EXPECT_THAT(*page, Not(HasSubstr("<img src")));
  EXPECT_THAT(*page, Not(HasSubstr("tiny<1>")));
  EXPECT_THAT(*page, HasSubstr("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"));
  EXPECT_THAT(*page, HasSubstr("without: &lt;b&gt;"));
  EXPECT_THAT(*page, HasSubstr("&quot;tool&quot;:&quot;&lt;octavo&gt;&quot;"));
  for (std::size_t at = page->find(" src="); at != std::string::npos; at = page->find(" src=", at + 1)) {
    if (page->compare(at + 5, 3, "//e") == 0) continue;  // the prompt's, as text
    EXPECT_EQ(page->compare(at + 5, 23, "\"data:image/webp;base64"), 0);
  }
}

TEST_F(ReportTest, html_begins_with_the_pictures_that_are_furthest_apart) {
  const auto page = report_html(comparison_, {.tool = "octavo 0", .most_pictures = 24, .accuracy = {}});
  ASSERT_TRUE(page.ok());
  EXPECT_LT(page->find("alert("), page->find("a plain wall"));
  const auto shorter = report_html(comparison_, {.tool = "octavo 0", .most_pictures = 1, .accuracy = {}});
  EXPECT_THAT(*shorter, Not(HasSubstr("a plain wall")));
  const auto without = report_html(comparison_, {.tool = "octavo 0", .most_pictures = 0, .accuracy = {}});
  EXPECT_THAT(*without, Not(HasSubstr("data:image")));
}

TEST_F(ReportTest, html_says_when_a_picture_is_gone) {
  fs::remove(work_ / "b" / "1.end");
  EXPECT_FALSE(report_html(comparison_, {.tool = "octavo 0", .most_pictures = 24, .accuracy = {}}).ok());
}

TEST_F(ReportTest, json_has_every_figure_and_null_for_no_difference) {
  const std::string text = report_text(report_json(comparison_, "octavo 0", nullptr));
  const boost::json::value report = boost::json::parse(text);
  EXPECT_EQ(report.at("format_version"), kReportFormatVersion);
  EXPECT_TRUE(report.at("accuracy").is_null());
  for (const Figure& figure : figures()) {
    EXPECT_TRUE(report.at("summary").at("ab").at(figure.key).at("mean").is_double()) << figure.key;
  }
  const auto& psnr = report.at("summary").at("ab").at("psnr_db");
  EXPECT_EQ(psnr.at("mean"), 25.0);
  EXPECT_EQ(psnr.at("identical"), 1);
  EXPECT_EQ(psnr.at("count"), 2);
  EXPECT_TRUE(report.at("summary").at("floor").at("psnr_db").at("mean").is_null());
  EXPECT_EQ(report.at("summary").at("ab").at("velocity_sqnr_db").at("count"), 4);
  EXPECT_EQ(report.at("steps").at(1).at("ab").at("sqnr_db").at("worst"), 20.0);
  EXPECT_TRUE(report.at("steps").at(0).at("ab").at("sqnr_db").at("worst").is_null());
  EXPECT_EQ(report.at("pictures").at(1).at("ab").at("velocity").at(1).at("cosine"), 0.99);
  EXPECT_EQ(report.at("pictures").at(1).at("prompt").as_string(), comparison_.prompts.entries[1].prompt);
}

TEST_F(ReportTest, floor_pictures_are_the_runs_that_stand_for_them) {
  EXPECT_EQ(comparison_.picture(Run::kF32, 0)->pixels[0], 'f');
  comparison_.sources[static_cast<std::size_t>(Run::kF32)] = Run::kA;
  EXPECT_EQ(comparison_.picture(Run::kF32, 0)->pixels[0], 'a');
}

TEST_F(ReportTest, run_files_come_back_as_they_went_and_cut_ones_do_not) {
  const fs::path path = work_ / "calls";
  std::vector<float> latents{1, -2, 3e30f, 4}, velocity{5, 6, 7, 8};
  {
    CallWriter writer(path);
    const Shape shape{1, 1, 2, 2};
    writer.add(0, 1.0f, TensorView(latents.data(), DType::kF32, shape),
               TensorView(velocity.data(), DType::kF32, shape));
    writer.add(1, 0.25f, TensorView(velocity.data(), DType::kF32, shape),
               TensorView(latents.data(), DType::kF32, shape));
    ASSERT_TRUE(writer.finish().ok());
  }
  const auto calls = read_calls(path);
  ASSERT_TRUE(calls.ok());
  ASSERT_EQ(calls->size(), 2u);
  EXPECT_EQ((*calls)[1].call.step, 1);
  EXPECT_EQ((*calls)[1].call.sigma, 0.25f);
  EXPECT_EQ((*calls)[1].call.latents, velocity);
  EXPECT_EQ((*calls)[1].velocity, latents);
  ASSERT_TRUE(write_floats(path, {latents, {}, velocity}).ok());
  EXPECT_EQ(*read_floats(path), (std::vector<std::vector<float>>{latents, {}, velocity}));
  const FloorErrors errors{{{0, 1.0f, {30, 0.9, 0.1}}}, {{0, 1.0f, {kInfinity, 1, 0}}, {1, 0.5f, {-3, -1, 2}}}};
  ASSERT_TRUE(write_errors(work_ / "errors", errors).ok());
  const auto read = read_errors(work_ / "errors");
  ASSERT_TRUE(read.ok());
  ASSERT_EQ(read->against_a.size(), 2u);
  EXPECT_EQ(read->floor[0].error.sqnr_db, 30);
  EXPECT_EQ(read->against_a[0].error.sqnr_db, kInfinity);
  EXPECT_EQ(read->against_a[1].sigma, 0.5f);
  fs::resize_file(work_ / "errors", fs::file_size(work_ / "errors") / 2);
  EXPECT_FALSE(read_errors(work_ / "errors").ok());
  fs::resize_file(path, fs::file_size(path) - 1);
  EXPECT_FALSE(read_floats(path).ok());
  EXPECT_FALSE(read_calls(work_ / "none").ok());
  EXPECT_EQ(write_floats("/dev/full", {latents}).code(), ErrorCode::kResourceExhausted);
}

}  // namespace
}  // namespace octavo::quantize
