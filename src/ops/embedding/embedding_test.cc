#include "ops/embedding/embedding.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "ops/embedding/embedding_kernels.h"
#include "ops/op_test.h"

namespace octavo::ops {
namespace {

constexpr DType kF32 = DType::kF32;

TestTensor make_ids(std::int64_t batch, std::int64_t tokens, std::int64_t vocabulary) {
  TestTensor ids(DType::kI32, {batch, tokens});
  for (std::int64_t i = 0; i < batch * tokens; ++i) {
    ids.view().as<std::int32_t>()[i] = static_cast<std::int32_t>((i * 7919) % vocabulary);
  }
  return ids;
}

TEST(Embedding, every_row_looks_up_and_adds_bit_for_bit) {
  TestContext context(3);
  for (const std::int64_t width : {1, 48, 77, 200}) {
    for (const DType dtype : {kF32, DType::kF16, DType::kBF16}) {
      for (const bool with_positions : {true, false}) {
        const TestTensor ids = make_ids(3, 50, 31);
        const TestTensor table = TestTensor::random(dtype, {31, width}, 1);
        const TestTensor positions = TestTensor::random(dtype, {77, width}, 2);
        for (const std::string_view row : context.rows(embedding_table())) {
          const TestTensor out(kF32, {3, 50, width});
          EmbeddingArgs args;
          args.ids = ids;
          args.table = table;
          if (with_positions) args.positions = positions;
          args.out = out;
          embedding(context.with_row("embedding", row), args);
          for (std::int64_t b = 0; b < 3; ++b) {
            for (std::int64_t t = 0; t < 50; ++t) {
              const Row expected(table, {ids.view().as<std::int32_t>()[b * 50 + t]});
              for (std::int64_t i = 0; i < width; ++i) {
                ASSERT_EQ(Row(out, {b, t})[i], expected[i] + (with_positions ? Row(positions, {t})[i] : 0.0f)) << row;
              }
            }
          }
        }
      }
    }
  }
}

TEST(Embedding, an_id_outside_the_table_is_refused) {
  TestContext context;
  const TestTensor table = TestTensor::random(kF32, {4, 8}, 1);
  const TestTensor out(kF32, {1, 1, 8});
  for (const std::string_view row : context.rows(embedding_table())) {
    for (const std::int32_t id : {-1, 4, 1 << 30}) {
      const TestTensor ids(DType::kI32, {1, 1});
      *ids.view().as<std::int32_t>() = id;
      EXPECT_THROW(embedding(context.with_row("embedding", row), {.ids = ids, .table = table, .out = out}),
                   CheckFailure)
          << row << " " << id;
    }
  }
}

TEST(TimestepEmbedding, has_cosines_first_and_the_paper_s_frequencies) {
  TestContext context;
  const TestTensor timesteps(kF32, {3});
  timesteps.view().f32()[0] = 0.0f;
  timesteps.view().f32()[1] = 1000.0f;
  timesteps.view().f32()[2] = 8.928573f;
  const TestTensor out(kF32, {3, 256});
  timestep_embedding(context.get(), {.timesteps = timesteps, .out = out});
  for (int k = 0; k < 128; ++k) {
    EXPECT_EQ(Row(out, {0})[k], 1.0f);
    EXPECT_EQ(Row(out, {0})[128 + k], 0.0f);
    for (int m = 1; m < 3; ++m) {
      const double t = timesteps.view().f32()[m];
      const double phase = t * std::exp(-std::log(10000.0) * k / 128);
      // Exponent, frequency and phase are floats: the exponent, up to 9.2, weighs most.
      const double tolerance = phase * 7e-7 + 1e-7;
      EXPECT_NEAR(Row(out, {m})[k], std::cos(phase), tolerance) << k;
      EXPECT_NEAR(Row(out, {m})[128 + k], std::sin(phase), tolerance) << k;
    }
  }
}

TEST(RelativeBias, buckets_are_those_of_the_paper) {
  EXPECT_EQ(relative_bucket(0), 0);
  EXPECT_EQ(relative_bucket(-1), 1);
  EXPECT_EQ(relative_bucket(1), 17);
  EXPECT_EQ(relative_bucket(-7), 7);
  EXPECT_EQ(relative_bucket(-8), 8);
  EXPECT_EQ(relative_bucket(-127), 15);
  EXPECT_EQ(relative_bucket(-100000), 15);
  EXPECT_EQ(relative_bucket(100000), 31);
  for (std::int64_t distance = 1; distance < 600; ++distance) {  // never falls, and mirrored
    EXPECT_LE(relative_bucket(-distance), relative_bucket(-distance - 1));
    EXPECT_EQ(relative_bucket(distance), relative_bucket(-distance) + 16);
  }
}

TEST(RelativeBias, every_row_equals_the_reference_bit_for_bit) {
  TestContext context;
  for (const std::int64_t tokens : {1, 2, 77, 150}) {
    for (const DType dtype : {kF32, DType::kF16, DType::kBF16}) {
      const TestTensor table = TestTensor::random(dtype, {32, 3}, 1);
      const TestTensor expected(kF32, {3, tokens, tokens});
      relative_bias(context.with_row("relative_bias", "reference"), {.table = table, .out = expected});
      for (const std::string_view row : context.rows(relative_bias_table())) {
        const TestTensor actual(kF32, {3, tokens, tokens}, 3);
        relative_bias(context.with_row("relative_bias", row), {.table = table, .out = actual});
        EXPECT_TRUE(same_bits(actual, expected)) << row << " " << tokens;
      }
    }
  }
}

}  // namespace
}  // namespace octavo::ops
