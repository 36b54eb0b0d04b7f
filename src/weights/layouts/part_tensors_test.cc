// The complete tables of names and shapes against what diffusers and transformers say (key_tables.json, recorded by
// tools/reference/record_key_tables.py), and the name maps over every tensor of them.
#include "weights/layouts/part_tensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <fstream>
#include <map>
#include <sstream>

#include "base/sha256.h"

namespace octavo::weights {
namespace {

struct Expected {
  std::string recorded;  // name in key_tables.json
  std::size_t tensors;
  std::int64_t parameters;
  std::vector<TensorShape> table;
};

constexpr NameSizes kLarge{.blocks = 38};
constexpr NameSizes kMedium{.blocks = 24};

std::vector<TensorShape> large() { return transformer_tensors(sd35_large_transformer()); }
std::vector<TensorShape> medium() { return transformer_tensors(sd35_medium_transformer()); }

/// Counts from the published models' sizes: 8.1 and 2.5 milliards of parameters, 84 million in the autoencoder.
std::vector<Expected> expected_tables() {
  return {
      {"transformer.large.diffusers", 1227, 8'146'280'768, large()},
      {"transformer.large.original", 923, 8'146'280'768, in_original_layout(Part::kTransformer, large(), kLarge)},
      {"transformer.medium.diffusers", 909, 2'469'663'936, medium()},
      {"transformer.medium.original", 665, 2'469'663'936, in_original_layout(Part::kTransformer, medium(), kMedium)},
      {"vae.diffusers", 244, 83'819'683, vae_tensors({})},
      {"vae.original", 244, 83'819'683, in_original_layout(Part::kVae, vae_tensors({}), {})},
      {"clip_l", 197, 123'650'304, clip_tensors(clip_l_sizes())},
      {"clip_g", 517, 694'659'840, clip_tensors(clip_g_sizes())},
      {"t5", 219, 4'762'310'656, t5_tensors({})},
  };
}

std::string listing(const std::vector<TensorShape>& table) {
  std::vector<std::string> lines;
  for (const TensorShape& tensor : table) lines.push_back(tensor.name + " " + tensor.shape.to_string() + "\n");
  std::sort(lines.begin(), lines.end());
  std::string text;
  for (const std::string& line : lines) text += line;
  return text;
}

TEST(PartTensors, released_models_have_exactly_the_recorded_names_and_shapes) {
  std::ifstream file(std::string(OCTAVO_SOURCE_DIR) + "/tests/parity/fixtures/key_tables.json");
  std::stringstream text;
  text << file.rdbuf();
  const auto recording = boost::json::parse(text.str());
  for (const Expected& expected : expected_tables()) {
    SCOPED_TRACE(expected.recorded);
    std::int64_t parameters = 0;
    for (const TensorShape& tensor : expected.table) parameters += tensor.shape.element_count();
    EXPECT_EQ(expected.table.size(), expected.tensors);
    EXPECT_EQ(parameters, expected.parameters);
    const auto& recorded = recording.at("tables").at(expected.recorded);
    EXPECT_EQ(recorded.at("tensors").to_number<std::size_t>(), expected.tensors);
    EXPECT_EQ(recorded.at("parameters").to_number<std::int64_t>(), expected.parameters);
    EXPECT_EQ(std::string(recorded.at("sha256").as_string()), sha256_hex(listing(expected.table)));
  }
}

TEST(NameMap, goes_there_and_back_for_every_tensor) {
  const struct {
    Part part;
    std::vector<TensorShape> table;
    NameSizes sizes;
  } cases[] = {{Part::kTransformer, large(), kLarge},
               {Part::kTransformer, medium(), kMedium},
               {Part::kVae, vae_tensors({}), {}},
               {Part::kVae, vae_tensors({.channels = {32, 64}}), {.vae_levels = 2}},
               {Part::kTextEncoder, clip_tensors(clip_l_sizes()), {}},
               {Part::kTextEncoder3, t5_tensors({}), {}}};
  for (const auto& one : cases) {
    for (const TensorShape& tensor : one.table) {
      const auto place = placement_in_original(one.part, tensor.name, one.sizes);
      ASSERT_TRUE(place.has_value()) << tensor.name;
      const auto back = canonical_in_original(one.part, place->stored, one.sizes);
      ASSERT_EQ(back.size(), static_cast<std::size_t>(place->slice_count)) << tensor.name;
      EXPECT_EQ(back[static_cast<std::size_t>(place->slice)], tensor.name);
    }
  }
}

TEST(NameMap, swaps_halves_in_the_final_norm_and_the_last_context_norm_alone) {
  std::vector<std::string> swapped;
  for (const TensorShape& tensor : large()) {
    if (placement_in_original(Part::kTransformer, tensor.name, kLarge)->swap_halves) swapped.push_back(tensor.name);
  }
  EXPECT_EQ(swapped, (std::vector<std::string>{"transformer_blocks.37.norm1_context.linear.weight",
                                               "transformer_blocks.37.norm1_context.linear.bias",
                                               "norm_out.linear.weight", "norm_out.linear.bias"}));
}

TEST(NameMap, knows_nothing_of_other_names) {
  for (const char* name : {"joint_blocks.0.x_block.attn.qkv.scale_weight", "joint_blocks.0.x_block.attn.qkv.weights",
                           "joint_blocks.00.x_block.attn.qkv.weight", "joint_blocks.-1.x_block.attn.qkv.weight",
                           "joint_blocks.99999999999.x_block.attn.qkv.weight", "input_blocks.0.0.weight", "", "."}) {
    EXPECT_TRUE(canonical_in_original(Part::kTransformer, name, kLarge).empty()) << name;
  }
  EXPECT_TRUE(canonical_in_original(Part::kVae, "decoder.up.4.block.0.conv1.weight", {}).empty());
  EXPECT_FALSE(placement_in_original(Part::kVae, "decoder.up_blocks.4.resnets.0.conv1.weight", {}).has_value());
  EXPECT_FALSE(placement_in_original(Part::kTransformer, "transformer_blocks.0.attn.to_q.lora", kLarge).has_value());
}

}  // namespace
}  // namespace octavo::weights
