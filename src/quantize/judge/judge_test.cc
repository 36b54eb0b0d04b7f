// The detector and the facts against what their Python originals say (tools/reference/record_detector.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <fstream>
#include <string>

#include "image/codec.h"
#include "quantize/judge/detector.h"
#include "quantize/judge/facts.h"

namespace octavo::quantize {
namespace {

using ::testing::HasSubstr;

const std::string kFixtures = OCTAVO_SOURCE_DIR "/tests/parity/fixtures/quality/";

std::string recorded_file(const std::string& name) {
  std::ifstream file(kFixtures + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

image::Image recorded_picture(const boost::json::value& name) {
  const std::string bytes = recorded_file(std::string(name.as_string()));
  auto picture = image::decode({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}, "picture");
  EXPECT_TRUE(picture.ok()) << picture.status().to_string();
  return *picture;
}

SeenThing thing_of(const boost::json::value& row) {
  return {.object = boost::json::value_to<int>(row.at(0)),
          .x = row.at(1).to_number<double>(),
          .y = row.at(2).to_number<double>(),
          .size = row.at(3).to_number<double>(),
          .tint = boost::json::value_to<int>(row.at(4))};
}

Reading reading_of(const boost::json::value& row) {
  Reading reading{.things = {}, .background = boost::json::value_to<int>(row.at("background"))};
  for (const auto& thing : row.at("things").as_array()) reading.things.push_back(thing_of(thing));
  return reading;
}

TEST(Detector, reads_what_pytorch_reads) {
  const auto detector = Detector::load(kFixtures + "detector.safetensors");
  ASSERT_TRUE(detector.ok()) << detector.status().to_string();
  const boost::json::value rows = boost::json::parse(recorded_file("readings.json"));
  ASSERT_EQ(rows.as_array().size(), 4u);
  for (const auto& row : rows.as_array()) {
    const Reading expected = reading_of(row), seen = detector->read(recorded_picture(row.at("file")));
    EXPECT_EQ(seen.background, expected.background);
    ASSERT_EQ(seen.things.size(), expected.things.size());
    ASSERT_GT(seen.things.size(), 1u);
    for (std::size_t i = 0; i < seen.things.size(); ++i) {
      EXPECT_EQ(seen.things[i].object, expected.things[i].object);
      EXPECT_EQ(seen.things[i].tint, expected.things[i].tint);
      // f32 sums of up to 10^3 products in another order, then exp() of a value of a few units.
      EXPECT_NEAR(seen.things[i].x, expected.things[i].x, 1e-4);
      EXPECT_NEAR(seen.things[i].y, expected.things[i].y, 1e-4);
      EXPECT_NEAR(seen.things[i].size, expected.things[i].size, 1e-4);
    }
  }
}

TEST(Detector, of_octavo_tiny_finds_what_is_there) {
  const auto detector = Detector::load(OCTAVO_SOURCE_DIR "/tools/tiny/detector.safetensors");
  ASSERT_TRUE(detector.ok()) << detector.status().to_string();
  EXPECT_EQ(detector->hash().size(), 64u);
  const boost::json::value rows = boost::json::parse(recorded_file("scenes.json"));
  for (const auto& row : rows.as_array()) {
    const Reading truth = reading_of(row), seen = detector->read(recorded_picture(row.at("file")));
    EXPECT_EQ(seen.background, truth.background);
    ASSERT_EQ(seen.things.size(), truth.things.size());
    for (const SeenThing& thing : truth.things) {
      const auto found = std::find_if(seen.things.begin(), seen.things.end(), [&](const SeenThing& other) {
        return other.object == thing.object && std::abs(other.x - thing.x) < 0.06 && std::abs(other.y - thing.y) < 0.06;
      });
      ASSERT_NE(found, seen.things.end()) << row.at("file");
      EXPECT_NEAR(found->size, thing.size, 0.15 * thing.size);
      EXPECT_EQ(found->tint, thing.tint);
    }
    const auto facts = parse_facts(row.at("facts"));
    ASSERT_TRUE(facts.ok()) << facts.status().to_string();
    for (const Fact& fact : *facts) EXPECT_TRUE(holds(fact, seen, 1, 1));
  }
}

TEST(Detector, refuses_files_that_hold_none) {
  const auto other = Detector::load(OCTAVO_SOURCE_DIR "/tests/parity/fixtures/tiny.safetensors");
  ASSERT_FALSE(other.ok());
  EXPECT_THAT(other.status().to_string(), HasSubstr("tiny.safetensors"));
  EXPECT_EQ(Detector::load("/nonexistent").status().code(), ErrorCode::kNotFound);
}

TEST(Facts, hold_where_python_says_so) {
  const boost::json::value rows = boost::json::parse(recorded_file("facts.json"));
  ASSERT_EQ(rows.as_array().size(), 160u);
  for (const auto& row : rows.as_array()) {
    const auto facts = parse_facts(boost::json::array{row.at("fact")});
    ASSERT_TRUE(facts.ok()) << facts.status().to_string();
    EXPECT_EQ(holds(facts->front(), reading_of(row.at("reading")), row.at("aspect").at(0).to_number<double>(),
                    row.at("aspect").at(1).to_number<double>()),
              row.at("holds").as_bool())
        << boost::json::serialize(row);
  }
}

TEST(Facts, what_is_none_is_refused_and_shown) {
  for (const char* text :
       {"3", "[]", "[\"object\"]", "[\"object\", -1]", "[\"object\", 1, 2]", "[\"object\", 1.5]", "[\"count\", 1]",
        "[\"ghost\", 1]", "[\"background\", \"red\"]", "[\"background\", \"red\", [\"x\"]]", "[\"spot\", 1, \"\"]",
        "[\"spot\", 1, \"middle\"]", "[\"relation\", 1, 2, \"behind\"]", "[\"relation\", 1, \"left\", 2]",
        "[\"size\", 1, \"huge\", null]", "[\"size\", 1, \"big\", \"cat\"]", "[\"tint\", 1, null]", "[7, 1]"}) {
    const auto facts = parse_facts(boost::json::array{boost::json::parse(text)});
    ASSERT_FALSE(facts.ok()) << text;
    EXPECT_THAT(facts.status().message(), HasSubstr("is not a fact"));
  }
  EXPECT_FALSE(parse_facts("cat").ok());
  EXPECT_TRUE(parse_facts(boost::json::array{}).ok());
}

}  // namespace
}  // namespace octavo::quantize
