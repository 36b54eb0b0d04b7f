// Prompts of every syntax, from text to the transformer's context, against diffusers and against the formulas of
// AUTOMATIC1111 and ComfyUI in PyTorch (tools/reference/record_text_conditioning.py).
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "models/sd35/sd35.h"
#include "pipeline/text_conditioning.h"
#include "testing/expect_close.h"
#include "tests/parity/fixture.h"
#include "tests/parity/recipe_model.h"

namespace octavo::parity {
namespace {

namespace fs = std::filesystem;
using generation::GenerationRequest;
using pipeline::TextTokens;

constexpr const char* kFixture = "text/conditioning.safetensors";

class TextConditioningParity : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { shared_ = new Shared(); }
  static void TearDownTestSuite() {
    delete shared_;
    shared_ = nullptr;
  }

  struct Shared {
    Shared() : recipe(kFixture), device(device::create_cpu_device()), stream(device->create_stream()) {
      const fs::path tiny = fs::path(OCTAVO_SOURCE_DIR) / "models/octavo-tiny";
      for (const char* folder : {"tokenizer", "tokenizer_2", "tokenizer_3", "scheduler"}) {
        fs::copy(tiny / folder, recipe.root() / folder, fs::copy_options::recursive);
      }
      std::ofstream(recipe.root() / "tokenizer_3" / "tokenizer_config.json")
          << R"({"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "model_max_length": 512})";
      std::ofstream(recipe.root() / "model_index.json")
          << R"({"_class_name": "StableDiffusion3Pipeline", "text_encoder_3": ["transformers", "T5EncoderModel"]})";
      auto loaded = models::Sd35::load(*device, weights::ModelCheckpoint::open(recipe.root()).value(), DType::kF32);
      OCTAVO_CHECK(loaded.ok(), "{}", loaded.status().to_string());
      model.emplace(*std::move(loaded));
      const TensorView bytes = fixture["cases"];
      cases =
          boost::json::parse(std::string_view(static_cast<const char*>(bytes.data()), bytes.byte_count())).as_object();
    }
    Fixture fixture{kFixture};
    RecipeModel recipe;
    std::unique_ptr<device::Device> device;
    std::unique_ptr<device::Stream> stream;
    std::optional<models::Sd35> model;
    boost::json::object cases;
  };

  GenerationRequest request(const std::string& name) const {
    const auto& fields = shared_->cases.at(name).as_object();
    const auto text = [&](const char* field) {
      const auto* value = fields.if_contains(field);
      return value == nullptr ? std::string() : std::string(value->as_string());
    };
    GenerationRequest wanted;
    wanted.prompt = text("prompt");
    wanted.prompt_2 = text("prompt_2");
    wanted.prompt_3 = text("prompt_3");
    wanted.negative_prompt = text("negative_prompt");
    wanted.negative_prompt_2 = text("negative_prompt_2");
    wanted.negative_prompt_3 = text("negative_prompt_3");
    wanted.prompt_syntax = text("prompt_syntax");
    wanted.t5_length = static_cast<int>(fields.at("t5_length").as_int64());
    if (const auto* skip = fields.if_contains("clip_skip")) wanted.clip_skip = static_cast<int>(skip->as_int64());
    generation::Capabilities can;
    can.max_t5_length = shared_->model->limits.max_t5_length;
    can.max_clip_skip = shared_->model->limits.max_clip_skip;
    return generation::resolve(wanted, can).value();
  }

  /// The branches' contexts and pooled vectors, copied out of the conditioner.
  struct Encoded {
    std::vector<float> context, pooled;
    Shape context_shape;
  };
  std::vector<Encoded> encode(const GenerationRequest& wanted, pipeline::TextConditioner& conditioner) {
    device::ExecutionContext context(*shared_->device, *shared_->stream, arena_);
    const std::vector<TextTokens> branches = conditioner.tokenize(wanted);
    arena_.set_measuring(true);
    for (const TextTokens& branch : branches) conditioner.plan(context, branch);
    const std::size_t peak = arena_.peak_bytes();
    arena_.set_measuring(false);
    OCTAVO_CHECK(arena_.reserve(*shared_->device, peak).ok(), "no memory");
    std::vector<Encoded> results;
    for (const TextTokens& branch : branches) {
      const auto text = conditioner.encode(context, branch).value();
      const auto copy = [](const TensorView& view) {
        return std::vector<float>(view.f32(), view.f32() + view.element_count());
      };
      results.push_back({copy(text.context), copy(text.pooled), text.context.shape()});
    }
    return results;
  }

  static inline Shared* shared_ = nullptr;
  device::Arena arena_;
};

TEST_F(TextConditioningParity, every_recorded_case_equals_its_reference) {
  EXPECT_GE(shared_->cases.size(), 10u);
  pipeline::TextConditioner conditioner(*shared_->model);
  for (const auto& member : shared_->cases) {
    const std::string name(member.key());
    const std::vector<Encoded> encoded = encode(request(name), conditioner);
    ASSERT_EQ(encoded.size(), 2u);
    for (const auto& [branch, prefix] : {std::pair{0, ".negative_"}, std::pair{1, "."}}) {
      const TensorView context = shared_->fixture[name + prefix + "context"];
      const TensorView pooled = shared_->fixture[name + prefix + "pooled"];
      const Encoded& found = encoded[static_cast<std::size_t>(branch)];
      ASSERT_EQ(found.context_shape.to_string(), context.shape().to_string()) << name << prefix;
      EXPECT_TRUE(testing::expect_close(TensorView(found.context.data(), DType::kF32, context.shape()), context,
                                        testing::kForwardF32))
          << name << prefix << "context";
      EXPECT_TRUE(testing::expect_close(TensorView(found.pooled.data(), DType::kF32, pooled.shape()), pooled,
                                        testing::kForwardF32))
          << name << prefix << "pooled";
    }
  }
}

TEST_F(TextConditioningParity, a_short_prompt_without_special_characters_is_the_same_in_every_syntax) {
  GenerationRequest wanted = request("plain_77");
  wanted.prompt = "a red apple on a table, soft light: 8k";
  wanted.negative_prompt = "blurry, dark";
  std::vector<std::vector<float>> contexts;
  for (const std::string_view syntax : generation::kPromptSyntaxes) {
    wanted.prompt_syntax = syntax;
    pipeline::TextConditioner conditioner(*shared_->model);
    contexts.push_back(encode(wanted, conditioner)[1].context);
  }
  EXPECT_EQ(contexts[0], contexts[1]);
  EXPECT_EQ(contexts[0], contexts[2]);
}

TEST_F(TextConditioningParity, the_cache_tells_apart_whatever_changes_the_encoding) {
  pipeline::TextConditioner shared(*shared_->model);
  const auto changed = [&](const auto& change) {
    GenerationRequest wanted = request("a1111_weights");
    change(wanted);
    pipeline::TextConditioner fresh(*shared_->model);
    const std::vector<Encoded> cached = encode(wanted, shared), alone = encode(wanted, fresh);
    for (std::size_t branch = 0; branch < 2; ++branch) {
      EXPECT_EQ(cached[branch].context, alone[branch].context);
      EXPECT_EQ(cached[branch].pooled, alone[branch].pooled);
    }
    return alone[1].context;
  };
  const auto base = changed([](auto&) {});
  EXPECT_EQ(changed([](auto&) {}), base) << "again, from the cache";
  EXPECT_NE(changed([](auto& r) { r.prompt_syntax = "comfyui"; }), base);
  EXPECT_NE(changed([](auto& r) { r.prompt_syntax = "plain"; }), base);
  EXPECT_NE(changed([](auto& r) { r.clip_skip = 3; }), base);
  EXPECT_NE(changed([](auto& r) { r.prompt = "a (red:1.2) apple, [blue] ((sky)) \\(x\\) (a (small:0.5) cat"; }), base);
  EXPECT_NE(changed([](auto& r) { r.prompt_2 = "a car"; }), base);
  EXPECT_NE(changed([](auto& r) { r.prompt_3 = "a car"; }), base);
  EXPECT_NE(changed([](auto& r) { r.t5_length = 78; }), base);
  EXPECT_EQ(changed([](auto& r) { r.clip_skip = 2; }), base) << "2 is the model's own layer";
}

TEST_F(TextConditioningParity, prompts_of_many_chunks_are_cut) {
  GenerationRequest wanted = request("a1111_break");
  for (int i = 0; i < 40; ++i) wanted.prompt += " BREAK cat";
  const auto branches = pipeline::TextConditioner(*shared_->model).tokenize(wanted);
  for (const TextTokens& branch : branches) {
    EXPECT_EQ(branch.clip_l.size(), pipeline::TextConditioner::kMostChunks);
    EXPECT_EQ(branch.clip_g.size(), pipeline::TextConditioner::kMostChunks);
  }
}

}  // namespace
}  // namespace octavo::parity
