#include "weights/synthesis/pooled_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tensor/convert.h"
#include "weights/model_checkpoint.h"
#include "weights/synthesis/synthetic_source.h"

namespace octavo::weights {
namespace {

std::vector<float> values_of(const PooledPart& part, const std::string& name) {
  const TensorView view = part.file->view(part.file->tensors().at(name)).value();
  std::vector<float> values(static_cast<std::size_t>(view.element_count()));
  convert_elements(static_cast<const std::byte*>(view.data()), view.dtype(),
                   reinterpret_cast<std::byte*>(values.data()), DType::kF32, view.element_count());
  return values;
}

void expect_spread(const std::vector<float>& values, double mean, double deviation, const std::string& name) {
  double sum = 0, squares = 0;
  for (const float value : values) sum += value;
  const double found = sum / static_cast<double>(values.size());
  for (const float value : values) squares += (value - found) * (value - found);
  const double spread = std::sqrt(squares / static_cast<double>(values.size()));
  const double slack = 6 * deviation / std::sqrt(static_cast<double>(values.size())) + 0.004 * std::abs(mean);
  EXPECT_NEAR(found, mean, slack) << name;
  EXPECT_NEAR(spread, deviation, slack + 0.01 * deviation) << name;
}

TEST(PooledModel, has_every_tensor_with_the_spread_that_synthesis_gives_it) {
  const ModelSizes sizes = model_sizes("tiny", {}, {1154, 1154, 1000}).value();
  const auto parts = make_pooled_model("made up", sizes, 3);
  ASSERT_TRUE(parts.ok()) << parts.status().to_string();
  const SyntheticSource source(sizes, {.seed = 3});
  ASSERT_EQ(parts->size(), source.parts().size());
  for (std::size_t p = 0; p < parts->size(); ++p) {
    const PooledPart& part = (*parts)[p];
    EXPECT_EQ(part.config, source.parts()[p].config);
    ASSERT_EQ(part.file->tensors().size(), source.parts()[p].tensors.size());
    for (std::size_t t = 0; t < source.parts()[p].tensors.size(); ++t) {
      const SourceTensor& tensor = source.parts()[p].tensors[t];
      EXPECT_EQ(part.file->tensors().at(tensor.name).shape, tensor.shape) << tensor.name;
      const auto spread = source.spread(p, t);
      if (!spread.position_table)
        expect_spread(values_of(part, tensor.name), spread.mean, spread.deviation, tensor.name);
    }
  }
  const PooledPart& transformer = parts->front();
  ASSERT_EQ(transformer.part, Part::kTransformer);
  const std::string block = "transformer_blocks.1.attn.";
  EXPECT_NE(values_of(transformer, block + "to_q.weight"), values_of(transformer, block + "to_k.weight"));
  std::vector<float> table(static_cast<std::size_t>(24 * 24 * 192));
  for (std::size_t t = 0; t < source.parts()[0].tensors.size(); ++t) {
    if (source.parts()[0].tensors[t].name != "pos_embed.pos_embed") continue;
    std::vector<std::uint16_t> halves(table.size());
    ASSERT_TRUE(source
                    .read(0, t, 0, static_cast<std::int64_t>(table.size()), DType::kBF16,
                          reinterpret_cast<std::byte*>(halves.data()))
                    .ok());
    convert_elements(reinterpret_cast<const std::byte*>(halves.data()), DType::kBF16,
                     reinterpret_cast<std::byte*>(table.data()), DType::kF32, static_cast<std::int64_t>(table.size()));
  }
  EXPECT_EQ(values_of(transformer, "pos_embed.pos_embed"), table);
}

TEST(PooledModel, letting_go_of_pages_forgets_nothing_and_a_seed_is_a_model) {
  const ModelSizes sizes = model_sizes("tiny", {}, {1154, 1154, 1000}).value();
  const auto one = make_pooled_model("made up", sizes, 3), same = make_pooled_model("made up", sizes, 3),
             other = make_pooled_model("made up", sizes, 4);
  ASSERT_TRUE(one.ok() && same.ok() && other.ok());
  const std::string name = "transformer_blocks.0.ff.net.0.proj.weight";
  const std::vector<float> before = values_of(one->front(), name);
  one->front().file->release(one->front().file->tensors().at(name));
  EXPECT_EQ(values_of(one->front(), name), before);
  EXPECT_EQ(values_of(same->front(), name), before);
  EXPECT_NE(values_of(other->front(), name), before);
}

TEST(PooledModel, opens_as_a_checkpoint_of_random_weights) {
  for (const std::string family : {"large", "large-turbo", "medium"}) {
    const SizeReductions reductions{.blocks = 1, .heads = 2, .width_of_t5 = 128, .width_of_vae = 32};
    ModelFiles files(std::filesystem::path("synthetic-" + family));
    files.synthetic = model_sizes(family, reductions, {1154, 1154, 1000}).value();
    files.family = parse_family(family).value();
    const auto opened = ModelCheckpoint::open(files);
    ASSERT_TRUE(opened.ok()) << opened.status().to_string();
    EXPECT_TRUE(opened->has_random_weights());
    EXPECT_EQ(opened->name(), "synthetic-" + family);
    EXPECT_EQ(opened->family(), files.family);
    for (const PartNames& row : kParts) {
      ASSERT_TRUE(opened->has_part(row.part));
      auto part = opened->open_part(row.part);
      ASSERT_TRUE(part.ok()) << part.status().to_string();
      EXPECT_FALSE(part->config.empty());
    }
  }
}

}  // namespace
}  // namespace octavo::weights
