#include "weights/synthesis/synthetic_source.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <cstring>
#include <set>

#include "weights/checkpoint.h"

namespace octavo::weights {
namespace {

constexpr Vocabularies kSmall{1154, 1154, 1000};

ModelSizes sizes_of(const std::string& family, const SizeReductions& reductions = {}) {
  return model_sizes(family, reductions, kSmall).value();
}

class Drawn {
 public:
  explicit Drawn(const ModelSizes& sizes, const SynthesisOptions& options = {}) : source_(sizes, options) {}
  std::vector<float> operator()(Part part, const std::string& name) const {
    const auto& parts = source_.parts();
    for (std::size_t p = 0; p < parts.size(); ++p) {
      if (parts[p].part != part) continue;
      for (std::size_t t = 0; t < parts[p].tensors.size(); ++t) {
        if (parts[p].tensors[t].name != name) continue;
        std::vector<float> values(static_cast<std::size_t>(parts[p].tensors[t].shape.element_count()));
        const Status read = source_.read(p, t, 0, static_cast<std::int64_t>(values.size()), DType::kF32,
                                         reinterpret_cast<std::byte*>(values.data()));
        OCTAVO_CHECK(read.ok(), "{}", read.to_string());
        return values;
      }
    }
    OCTAVO_CHECK(false, "no tensor {}", name);
  }
  const SyntheticSource& source() const { return source_; }

 private:
  SyntheticSource source_;
};

double mean(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

double deviation(const std::vector<float>& values) {
  const double centre = mean(values);
  double sum = 0;
  for (const float value : values) sum += (value - centre) * (value - centre);
  return std::sqrt(sum / static_cast<double>(values.size()));
}

TEST(SyntheticSource, any_piece_equals_the_same_piece_of_the_whole) {
  const SynthesisOptions options{.seed = 5, .outliers = 3};
  const Drawn drawn(sizes_of("tiny"), options);
  const auto& parts = drawn.source().parts();
  for (std::size_t part = 0; part < parts.size(); ++part) {
    for (std::size_t tensor = 0; tensor < parts[part].tensors.size(); tensor += 3) {
      const SourceTensor& one = parts[part].tensors[tensor];
      const auto whole = drawn(parts[part].part, one.name);
      const std::int64_t begin = one.shape.element_count() / 3, count = (one.shape.element_count() + 1) / 2;
      std::vector<float> piece(static_cast<std::size_t>(count));
      ASSERT_TRUE(drawn.source()
                      .read(part, tensor, begin, count, DType::kF32, reinterpret_cast<std::byte*>(piece.data()))
                      .ok());
      EXPECT_EQ(std::memcmp(piece.data(), whole.data() + begin, piece.size() * sizeof(float)), 0) << one.name;
    }
  }
}

TEST(SyntheticSource, seeds_and_names_differ_and_repeat) {
  const Drawn first(sizes_of("tiny"), {.seed = 1}), again(sizes_of("tiny"), {.seed = 1}),
      other(sizes_of("tiny"), {.seed = 2});
  const std::string name = "transformer_blocks.0.attn.to_q.weight";
  EXPECT_EQ(first(Part::kTransformer, name), again(Part::kTransformer, name));
  EXPECT_NE(first(Part::kTransformer, name), other(Part::kTransformer, name));
  EXPECT_NE(first(Part::kTransformer, name), first(Part::kTransformer, "transformer_blocks.0.attn.to_k.weight"));
  EXPECT_NE(first(Part::kTextEncoder, "text_model.final_layer_norm.weight"),
            first(Part::kTextEncoder2, "text_model.final_layer_norm.weight"));
}

TEST(SyntheticSource, deviations_are_the_documented_ones) {
  const Drawn drawn(sizes_of("tiny"));
  const auto expect = [&](Part part, const std::string& name, double centre, double spread) {
    const auto values = drawn(part, name);
    EXPECT_NEAR(deviation(values), spread, 0.1 * spread) << name;
    EXPECT_NEAR(mean(values), centre, 4 * spread / std::sqrt(static_cast<double>(values.size()))) << name;
    for (const float value : values) ASSERT_LE(std::fabs(value - centre), 3.47 * spread) << name;
  };
  const double wide = std::sqrt(192.0);
  expect(Part::kTransformer, "transformer_blocks.2.ff.net.0.proj.weight", 0, 1 / wide);
  expect(Part::kTransformer, "transformer_blocks.2.norm1.linear.weight", 0, 0.5 / wide);
  expect(Part::kTransformer, "transformer_blocks.2.norm1.linear.bias", 0, 0.1);
  expect(Part::kTransformer, "transformer_blocks.2.ff.net.0.proj.bias", 0, 0.02);
  expect(Part::kTransformer, "pos_embed.proj.weight", 0, 1.0 / 8);
  expect(Part::kVae, "decoder.mid_block.resnets.0.conv1.weight", 0, 1 / std::sqrt(96.0 * 9));
  expect(Part::kVae, "decoder.mid_block.resnets.0.conv2.weight", 0, 0.5 / std::sqrt(96.0 * 9));
  expect(Part::kTextEncoder2, "text_model.embeddings.token_embedding.weight", 0, 0.5);
  expect(Part::kTextEncoder3, "shared.weight", 0, 1);
  expect(Part::kTextEncoder3, "encoder.block.0.layer.0.SelfAttention.q.weight", 0, 1 / wide / 8);
  expect(Part::kTextEncoder3, "encoder.block.1.layer.1.DenseReluDense.wo.weight", 0, 0.5 / std::sqrt(448.0));
  expect(Part::kTextEncoder3, "encoder.final_layer_norm.weight", 1, 0.1);
}

TEST(SyntheticSource, position_table_has_the_sines_and_cosines_of_the_released_models) {
  const Drawn drawn(sizes_of("medium", {.blocks = 1, .heads = 1}));
  const auto table = drawn(Part::kTransformer, "pos_embed.pos_embed");
  constexpr std::int64_t kSide = 384, kWidth = 64;
  ASSERT_EQ(table.size(), static_cast<std::size_t>(kSide * kSide * kWidth));
  for (const std::int64_t y : {0, 7, 383}) {
    for (const std::int64_t x : {0, 5, 200}) {
      const float* token = table.data() + (y * kSide + x) * kWidth;
      for (int i = 0; i < 16; ++i) {
        const double frequency = std::pow(10000.0, -i / 16.0);  // coordinates count in 1/6: 384 patches, 64 by default
        EXPECT_NEAR(token[i], std::sin(static_cast<double>(x) / 6 * frequency), 1e-6);
        EXPECT_NEAR(token[16 + i], std::cos(static_cast<double>(x) / 6 * frequency), 1e-6);
        EXPECT_NEAR(token[32 + i], std::sin(static_cast<double>(y) / 6 * frequency), 1e-6);
        EXPECT_NEAR(token[48 + i], std::cos(static_cast<double>(y) / 6 * frequency), 1e-6);
      }
    }
  }
}

TEST(SyntheticSource, planted_channels_are_large_where_they_are_made_and_small_where_they_are_read) {
  constexpr std::int64_t kWidth = 192;
  const Drawn plain(sizes_of("tiny"), {.seed = 9}), planted(sizes_of("tiny"), {.seed = 9, .outliers = 4});
  const auto bias = planted(Part::kTransformer, "transformer_blocks.3.norm1.linear.bias");
  const auto plain_bias = plain(Part::kTransformer, "transformer_blocks.3.norm1.linear.bias");
  const auto q = planted(Part::kTransformer, "transformer_blocks.3.attn.to_q.weight");
  const auto plain_q = plain(Part::kTransformer, "transformer_blocks.3.attn.to_q.weight");
  std::set<std::size_t> channels;
  for (std::size_t i = 0; i < bias.size(); ++i) {
    const std::size_t chunk = i / kWidth;
    if (bias[i] == plain_bias[i]) continue;
    EXPECT_TRUE(chunk == 1 || chunk == 4) << chunk;  // scale of the attention, of the feed-forward layer
    const float factor = std::fabs(1.0f + bias[i]);
    EXPECT_GE(factor, 49.9f);
    EXPECT_LE(factor, 1000.1f);
    if (chunk == 1) channels.insert(i % kWidth);
  }
  EXPECT_EQ(channels.size(), 4u);
  for (std::size_t i = 0; i < q.size(); ++i) {
    const std::size_t channel = i % kWidth;
    const float expected = channels.contains(channel) ? plain_q[i] / (1.0f + bias[kWidth + channel]) : plain_q[i];
    ASSERT_NEAR(q[i], expected, 1e-5 * std::fabs(expected)) << i;
  }
  // The hidden channels of the feed-forward layer: rows of the first product, columns of the second.
  const auto first = planted(Part::kTransformer, "transformer_blocks.3.ff_context.net.0.proj.bias");
  const auto plain_first = plain(Part::kTransformer, "transformer_blocks.3.ff_context.net.0.proj.bias");
  const auto second = planted(Part::kTransformer, "transformer_blocks.3.ff_context.net.2.weight");
  const auto plain_second = plain(Part::kTransformer, "transformer_blocks.3.ff_context.net.2.weight");
  int hidden = 0;
  for (std::size_t channel = 0; channel < first.size(); ++channel) {
    if (first[channel] == plain_first[channel]) continue;
    ++hidden;
    const float factor = first[channel] / plain_first[channel];
    EXPECT_NEAR(second[channel] * factor, plain_second[channel], 1e-5f);
  }
  EXPECT_EQ(hidden, 4);
  // The last block's text stream has no feed-forward layer, and its scale comes first.
  const auto last = planted(Part::kTransformer, "transformer_blocks.5.norm1_context.linear.bias");
  EXPECT_EQ(std::count_if(last.begin(), last.begin() + kWidth, [](float value) { return std::fabs(value) > 10; }), 4);
  EXPECT_EQ(std::count_if(last.begin() + kWidth, last.end(), [](float value) { return std::fabs(value) > 10; }), 0);
}

TEST(ModelSizes, tiny_is_the_embedded_model) {
  const auto embedded = DiffusersFolder::open(std::filesystem::path(OCTAVO_SOURCE_DIR) / "models/octavo-tiny").value();
  const Drawn drawn(sizes_of("tiny"), {.dtype = DType::kF16});
  for (const SourcePart& part : drawn.source().parts()) {
    const std::string folder(names_of(part.part).folder);
    const auto config = embedded.read_json(folder + "/config.json").value();
    const auto made = boost::json::parse(part.config).get_object();
    for (const auto& member : config) {
      ASSERT_TRUE(made.contains(member.key())) << folder << " " << member.key();
      EXPECT_EQ(made.at(member.key()), member.value()) << folder << " " << member.key();
    }
  }
}

TEST(ModelSizes, full_families_have_the_published_counts_of_parameters) {
  const auto parameters = [](const std::vector<TensorShape>& tensors) {
    std::int64_t sum = 0;
    for (const TensorShape& tensor : tensors) sum += tensor.shape.element_count();
    return sum;
  };
  const ModelSizes large = sizes_of("large-turbo"), medium = sizes_of("medium");
  EXPECT_EQ(parameters(transformer_tensors(large.transformer)), 8'146'280'768);
  EXPECT_EQ(parameters(transformer_tensors(medium.transformer)), 2'469'663'936);
  EXPECT_EQ(parameters(t5_tensors(large.t5)), 4'762'310'656);
  EXPECT_EQ(parameters(vae_tensors(medium.vae)), 83'819'683);
}

TEST(ModelSizes, reductions_keep_the_parts_fitting_together) {
  const ModelSizes sizes = sizes_of("medium", {.blocks = 4, .heads = 3, .width_of_t5 = 256, .width_of_vae = 32});
  EXPECT_EQ(sizes.transformer.blocks, 4);
  EXPECT_EQ(sizes.transformer.dual_blocks, 2);
  EXPECT_EQ(sizes.transformer.width, 192);
  EXPECT_EQ(sizes.transformer.context_width, sizes.t5.width);
  EXPECT_EQ(sizes.transformer.pooled_width, sizes.clip_l.projection + sizes.clip_g.projection);
  EXPECT_LE(sizes.clip_l.width + sizes.clip_g.width, sizes.t5.width);
  EXPECT_EQ(sizes.clip_g.vocabulary, kSmall.clip_g);
  EXPECT_EQ(sizes.vae.channels, (std::vector<std::int64_t>{32, 64, 128, 128}));
  const ModelSizes shallow = sizes_of("large", {.blocks = 2});
  EXPECT_EQ(shallow.transformer.width, 2432);
  EXPECT_EQ(shallow.t5.vocabulary, 32128);
}

TEST(ModelSizes, wrong_words_and_sizes_name_their_flag) {
  EXPECT_EQ(model_sizes("xl", {}, kSmall).status().subject(), "--family");
  EXPECT_EQ(model_sizes("large", {.width_of_t5 = 64}, kSmall).status().subject(), "--width-of-t5");
  EXPECT_EQ(model_sizes("large", {.width_of_t5 = 200}, kSmall).status().subject(), "--width-of-t5");
  EXPECT_EQ(model_sizes("large", {.width_of_vae = 20}, kSmall).status().subject(), "--width-of-vae");
  EXPECT_EQ(model_sizes("large", {.blocks = 5000}, kSmall).status().subject(), "--blocks");
}

}  // namespace
}  // namespace octavo::weights
