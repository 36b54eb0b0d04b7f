#include "weights/lora/merged_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
#include <sstream>

#include "weights/export/matrix_source.h"
#include "weights/layouts/part_tensors.h"
#include "weights/test_files.h"

namespace octavo::weights {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

const fs::path kFixtures = fs::path(OCTAVO_SOURCE_DIR) / "tests/parity/fixtures/lora";

/// values() of tools/reference/record_lora.py.
float value(std::size_t number, std::int64_t index, float scale) {
  const auto mixed = static_cast<std::uint32_t>(static_cast<std::uint64_t>(index) * 2654435761u + number * 40503u);
  return (static_cast<float>(mixed >> 8) / static_cast<float>(1 << 24) - 0.5f) * scale;
}

boost::json::value recording() {
  std::ifstream file(kFixtures / "fused.json");
  std::stringstream text;
  text << file.rdbuf();
  return boost::json::parse(text.str());
}

/// The recorder's model.
test::MatrixSource recorded_model() {
  std::map<std::string, Shape> shapes;
  const TransformerSizes sizes{.blocks = 2, .width = 64, .position_side = 4, .context_width = 32, .pooled_width = 16};
  for (const TensorShape& tensor : transformer_tensors(sizes)) shapes[tensor.name] = tensor.shape;
  test::MatrixSource source;
  std::size_t number = 0;
  for (const auto& [name, shape] : shapes) {
    source.add(name, shape, [number](std::int64_t i) { return value(number, i, 0.25f); });
    ++number;
  }
  return source;
}

std::size_t index_of(const TensorSource& source, const std::string& name) {
  const auto& tensors = source.parts()[0].tensors;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].name == name) return i;
  }
  OCTAVO_CHECK(false, "no tensor {}", name);
}

std::vector<float> read(const TensorSource& source, std::size_t tensor, std::int64_t begin, std::int64_t count) {
  std::vector<float> values(static_cast<std::size_t>(count));
  const Status status = source.read(0, tensor, begin, count, DType::kF32, reinterpret_cast<std::byte*>(values.data()));
  OCTAVO_CHECK(status.ok(), "{}", status.to_string());
  return values;
}

std::vector<float> whole(const TensorSource& source, const std::string& name) {
  const std::size_t tensor = index_of(source, name);
  return read(source, tensor, 0, source.parts()[0].tensors[tensor].shape.element_count());
}

class Recorded : public ::testing::TestWithParam<const char*> {};

TEST_P(Recorded, merging_equals_diffusers_fuse_lora) {
  const auto recorded = recording();
  const auto base = recorded_model();
  ASSERT_EQ(base.parts()[0].tensors.size(), recorded.at("names").as_array().size());
  const auto strength = static_cast<float>(recorded.at("strength").as_double());
  const auto merged = MergedSource::create(base, {{kFixtures / (GetParam() + std::string(".safetensors")), strength}});
  ASSERT_TRUE(merged.ok()) << merged.status().to_string();
  const bool has_alpha = GetParam() != std::string("peft");
  const auto& fused = recorded.at(has_alpha ? "fused" : "fused_without_alpha").as_object();
  EXPECT_EQ((*merged)->changed_count(), fused.size());
  for (const auto& layer : fused) {
    const auto values = whole(**merged, std::string(layer.key()) + ".weight");
    for (const auto& sample : layer.value().as_array()) {
      const auto index = static_cast<std::size_t>(sample.at(0).to_number<std::int64_t>());
      // Sums of at most four products below 0.1 in f32, in another order.
      EXPECT_NEAR(values[index], sample.at(1).to_number<double>(), 1e-7) << layer.key() << " " << index;
    }
  }
  EXPECT_EQ(whole(**merged, "proj_out.weight"), whole(base, "proj_out.weight"));
}

INSTANTIATE_TEST_SUITE_P(spellings, Recorded, ::testing::Values("diffusers", "kohya", "peft"));

TEST(MergedSource, any_piece_is_a_piece_of_the_whole) {
  const auto base = recorded_model();
  const auto merged = MergedSource::create(base, {{kFixtures / "diffusers.safetensors", -1.5f}}).value();
  for (const char* name :
       {"norm_out.linear.weight", "pos_embed.proj.weight", "transformer_blocks.0.attn.to_k.weight"}) {
    const auto all = whole(*merged, name);
    const auto count = static_cast<std::int64_t>(all.size());
    for (const auto& [begin, length] :
         {std::pair<std::int64_t, std::int64_t>{0, 1}, {63, 2}, {count / 2 - 5, 70}, {count - 1, 1}}) {
      const auto piece = read(*merged, index_of(*merged, name), begin, length);
      EXPECT_EQ(piece, std::vector<float>(all.begin() + begin, all.begin() + begin + length)) << name << " " << begin;
    }
  }
}

TEST(MergedSource, several_files_add_up_and_a_strength_of_zero_changes_nothing) {
  const auto base = recorded_model();
  const fs::path file = kFixtures / "kohya.safetensors";
  const auto zero = MergedSource::create(base, {{file, 0.0f}}).value();
  const auto both = MergedSource::create(base, {{file, 0.75f}, {file, 0.25f}}).value();
  const auto once = MergedSource::create(base, {{file, 1.0f}}).value();
  const std::string name = "transformer_blocks.0.attn.to_v.weight";
  EXPECT_EQ(whole(*zero, name), whole(base, name));
  const auto a = whole(*both, name), b = whole(*once, name);
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-7);
}

// A small file made here.
struct Tensor {
  std::string name;
  Shape shape;
  float fill = 0.5f;
};

class LoraFiles : public ::testing::Test {
 protected:
  LoraFiles() {
    for (const char* name : {"transformer_blocks.0.attn.to_q.weight", "transformer_blocks.0.attn.to_k.weight"}) {
      base_.add(name, Shape{4, 6}, [](std::int64_t) { return 1.0f; });
    }
  }
  fs::path write(const std::vector<Tensor>& tensors, const std::map<std::string, std::string>& metadata = {}) {
    std::vector<std::vector<float>> data;
    std::vector<NamedTensor> named;
    for (const Tensor& tensor : tensors) {
      data.emplace_back(static_cast<std::size_t>(tensor.shape.element_count()), tensor.fill);
      named.push_back({tensor.name, TensorView(data.back().data(), DType::kF32, tensor.shape)});
    }
    const fs::path path = folder_ / "lora.safetensors";
    OCTAVO_CHECK(write_safetensors(path, named, metadata).ok(), "cannot write {}", path.string());
    return path;
  }
  static std::vector<Tensor> pair(const std::string& module, std::int64_t rank = 2, std::int64_t rows = 4,
                                  std::int64_t inner = 6) {
    return {{module + ".lora_A.weight", Shape{rank, inner}}, {module + ".lora_B.weight", Shape{rows, rank}}};
  }
  Status refusal(const std::vector<Tensor>& tensors, const std::map<std::string, std::string>& metadata = {}) {
    const auto merged = MergedSource::create(base_, {{write(tensors, metadata), 1.0f}});
    EXPECT_FALSE(merged.ok());
    if (merged.ok()) return {};
    EXPECT_THAT(merged.status().subject(), HasSubstr("lora.safetensors"));
    return merged.status();
  }
  /// What is added to to_q: rank * 0.25 * scale.
  float added(const std::vector<Tensor>& tensors, const std::map<std::string, std::string>& metadata = {}) {
    const auto merged = MergedSource::create(base_, {{write(tensors, metadata), 1.0f}});
    OCTAVO_CHECK(merged.ok(), "{}", merged.status().to_string());
    return whole(**merged, "transformer_blocks.0.attn.to_q.weight").front() - 1.0f;
  }

  const test::TemporaryFolder folder_;
  test::MatrixSource base_;
};

constexpr const char* kQ = "transformer.transformer_blocks.0.attn.to_q";

TEST_F(LoraFiles, the_scale_is_alpha_over_rank_and_one_without_an_alpha) {
  EXPECT_EQ(added(pair(kQ)), 0.5f);
  auto with_alpha = pair(kQ);
  with_alpha.push_back({std::string(kQ) + ".alpha", Shape{}, 1.0f});
  EXPECT_EQ(added(with_alpha), 0.25f);
  with_alpha.back().fill = 0.0f;
  EXPECT_EQ(added(with_alpha), 0.5f);
  const auto header = [](const std::string& text) {
    return std::map<std::string, std::string>{{"lora_adapter_metadata", text}};
  };
  EXPECT_EQ(added(pair(kQ), header(R"({"transformer.lora_alpha": 4, "transformer.r": 2})")), 1.0f);
  EXPECT_EQ(added(pair(kQ), header(R"({"lora_alpha": 4})")), 1.0f);
  EXPECT_EQ(added(pair(kQ, 4), header(R"({"transformer.lora_alpha": 4, "transformer.use_rslora": true})")), 2.0f);
  EXPECT_EQ(added(pair(kQ), header(R"({"transformer.lora_alpha": 4, "transformer.alpha_pattern": {"attn.to_q": 8}})")),
            2.0f);
  EXPECT_EQ(added(pair(kQ), header(R"({"transformer.lora_alpha": 4, "transformer.alpha_pattern": {"to_k": 8}})")),
            1.0f);
}

TEST_F(LoraFiles, every_spelling_of_a_pair_is_read) {
  for (const char* module :
       {"lora_transformer_transformer_blocks_0_attn_to_q", "lycoris_transformer_blocks_0_attn_to_q",
        "base_model.model.transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_q"}) {
    for (const auto& [down, up] :
         {std::pair(".lora_down.weight", ".lora_up.weight"), std::pair(".lora.down.weight", ".lora.up.weight"),
          std::pair(".lora_A.default.weight", ".lora_B.default.weight"),
          std::pair(".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")}) {
      EXPECT_EQ(added({{std::string(module) + down, Shape{2, 6}}, {std::string(module) + up, Shape{4, 2}}}), 0.5f)
          << module << down;
    }
  }
}

TEST_F(LoraFiles, text_encoders_are_merged_by_both_namings_and_missed_by_their_flag) {
  test::MatrixSource encoder(Part::kTextEncoder2);
  encoder.add("text_model.encoder.layers.0.self_attn.q_proj.weight", Shape{4, 6}, [](std::int64_t) { return 1.0f; });
  for (const char* module : {"text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj",
                             "lora_te2_text_model_encoder_layers_0_self_attn_q_proj"}) {
    const fs::path path = write(pair(module));
    const auto merged = MergedSource::create(encoder, {{path, 1.0f}});
    ASSERT_TRUE(merged.ok()) << merged.status().to_string();
    EXPECT_EQ(read(**merged, 0, 0, 1).front(), 1.5f);
    const Status missing = MergedSource::create(base_, {{path, 1.0f}}).status();
    EXPECT_THAT(missing.message(), HasSubstr("--clip-g"));
    EXPECT_THAT(missing.message(), HasSubstr(module));
  }
}

TEST_F(LoraFiles, of_another_model_is_refused_by_the_first_key) {
  EXPECT_THAT(
      refusal(pair("lora_unet_down_blocks_1_attentions_0_proj_in")).message(),
      HasSubstr("the first is lora_unet_down_blocks_1_attentions_0_proj_in, a name of Stable Diffusion 1, 2 or XL"));
  auto flux = pair(kQ, 2, 8, 8);
  for (Tensor& tensor : pair("transformer.single_transformer_blocks.0.attn.to_q", 2, 8, 8)) flux.push_back(tensor);
  EXPECT_THAT(refusal(flux).message(), HasSubstr("is of another model"));
  EXPECT_THAT(refusal(pair(kQ, 2, 8, 8)).message(),
              HasSubstr("transformer.transformer_blocks.0.attn.to_q is [8, 8], the model's "
                        "transformer_blocks.0.attn.to_q.weight is [4, 6]"));
  EXPECT_THAT(refusal(pair("transformer.double_blocks.0.img_attn.qkv")).message(), HasSubstr("a name of Flux"));
}

TEST_F(LoraFiles, keys_that_the_model_has_not_are_listed) {
  auto tensors = pair(kQ);
  for (Tensor& tensor : pair("transformer.transformer_blocks.7.attn.to_q")) tensors.push_back(tensor);
  tensors.push_back({"transformer.strange", Shape{1}});
  const Status status = refusal(tensors);
  EXPECT_THAT(status.message(), HasSubstr("holds 2 names that the model has not"));
  EXPECT_THAT(status.message(), HasSubstr("transformer.strange"));
  EXPECT_THAT(status.message(), HasSubstr("transformer_blocks.7.attn.to_q"));
  auto lone_alpha = pair(kQ);
  lone_alpha.push_back({"transformer.transformer_blocks.0.attn.to_k.alpha", Shape{}, 1.0f});
  EXPECT_THAT(refusal(lone_alpha).message(), HasSubstr("to_k.alpha"));
}

TEST_F(LoraFiles, other_kinds_of_update_are_refused_by_name) {
  for (const auto& [key, word] : {std::pair(".dora_scale", "DoRA"), std::pair(".lora_magnitude_vector", "DoRA"),
                                  std::pair(".lora_mid.weight", "Tucker"), std::pair(".hada_w1_a", "LoHa"),
                                  std::pair(".lokr_w1", "LoKr"), std::pair(".diff_b", "difference")}) {
    auto tensors = pair(kQ);
    tensors.push_back({kQ + std::string(key), Shape{4}});
    EXPECT_THAT(refusal(tensors).message(), HasSubstr(word)) << key;
  }
  EXPECT_THAT(refusal(pair(kQ), {{"lora_adapter_metadata", R"({"transformer.use_dora": true})"}}).message(),
              HasSubstr("DoRA"));
  EXPECT_THAT(refusal({{"pos_embed", Shape{4}}}).message(), HasSubstr("is no LoRA"));
}

TEST_F(LoraFiles, what_is_broken_is_named) {
  auto half = pair(kQ);
  half.pop_back();
  EXPECT_THAT(refusal(half).message(), HasSubstr("lora_A.weight has no other half"));
  auto ranks = pair(kQ);
  ranks[1].shape = Shape{4, 3};
  EXPECT_THAT(refusal(ranks).message(), HasSubstr("their ranks differ"));
  auto bad = pair(kQ);
  bad[0].fill = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(refusal(bad).message(), HasSubstr("lora_A.weight holds NaN or infinity"));
  auto alpha = pair(kQ);
  alpha.push_back({kQ + std::string(".alpha"), Shape{2}});
  EXPECT_THAT(refusal(alpha).message(), HasSubstr("an alpha is one number"));
  EXPECT_THAT(refusal(pair(kQ), {{"lora_adapter_metadata", "[]"}}).message(), HasSubstr("lora_adapter_metadata"));
  const auto missing = MergedSource::create(base_, {{folder_ / "none.safetensors", 1.0f}});
  EXPECT_EQ(missing.status().code(), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace octavo::weights
