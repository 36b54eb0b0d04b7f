#include "ops/sample/sample.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ops/op_test.h"

namespace octavo::ops {
namespace {

constexpr DType kF32 = DType::kF32;
constexpr DType kBF16 = DType::kBF16;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(Lincomb, every_row_rounds_each_product_and_each_sum) {
  TestContext context(3);
  for (const std::int64_t count : {1, 7, 16, 1000, 40000}) {
    for (int terms = 1; terms <= 4; ++terms) {
      const TestTensor inputs[] = {TestTensor::random(kF32, {count}, 1), TestTensor::random(kF32, {count}, 2),
                                   TestTensor::random(kF32, {count}, 3), TestTensor::random(kF32, {count}, 4)};
      const float coefficients[] = {1.0f, -0.0142307f, 0.3f, 7.7f};
      for (const std::string_view row : context.rows(lincomb_table())) {
        const TestTensor out(kF32, {count});
        LincombArgs args;
        for (int i = 0; i < terms; ++i) args.terms[i] = {coefficients[i], inputs[i]};
        args.term_count = terms;
        args.out = out;
        lincomb(context.with_row("lincomb", row), args);
        for (std::int64_t i = 0; i < count; ++i) {
          // volatile: each intermediate really is a float.
          volatile float sum = coefficients[0] * inputs[0].view().f32()[i];
          for (int term = 1; term < terms; ++term) {
            volatile float product = coefficients[term] * inputs[term].view().f32()[i];
            sum = sum + product;
          }
          ASSERT_EQ(out.view().f32()[i], sum) << row << " " << i;
        }
      }
    }
  }
}

TEST(Lincomb, out_may_be_an_input) {
  TestContext context;
  for (const std::string_view row : context.rows(lincomb_table())) {
    const TestTensor x = TestTensor::random(kF32, {999}, 1);
    const TestTensor v = TestTensor::random(kF32, {999}, 2);
    const TestTensor expected(kF32, {999});
    const auto run = [&](const TensorView& out) {
      LincombArgs args;
      args.terms[0] = {1.0f, x};
      args.terms[1] = {-0.25f, v};
      args.term_count = 2;
      args.out = out;
      lincomb(context.with_row("lincomb", row), args);
    };
    run(expected);
    run(x);
    EXPECT_TRUE(x.same_bytes(expected)) << row;
  }
}

TEST(Lincomb, refuses_no_terms_and_other_sizes) {
  TestContext context;
  const TestTensor x = TestTensor::random(kF32, {4}, 1);
  const TestTensor longer(kF32, {5});
  EXPECT_THROW(lincomb(context.get(), {.out = x}), CheckFailure);
  LincombArgs args;
  args.terms[0] = {1.0f, longer};
  args.term_count = 1;
  args.out = x;
  EXPECT_THROW(lincomb(context.get(), args), CheckFailure);
}

TEST(Guidance, every_row_follows_the_formula_bit_for_bit_and_may_write_over_its_inputs) {
  TestContext context(3);
  for (const std::int64_t count : {1, 31, 30000}) {
    for (const std::string_view row : context.rows(guidance_table())) {
      const TestTensor uncond = TestTensor::random(kF32, {count}, 1);
      const TestTensor cond = TestTensor::random(kF32, {count}, 2);
      const TestTensor out(kF32, {count});
      guidance(context.with_row("guidance", row), {.uncond = uncond, .cond = cond, .guidance_scale = 4.5f, .out = out});
      for (std::int64_t i = 0; i < count; ++i) {
        volatile float difference = cond.view().f32()[i] - uncond.view().f32()[i];
        volatile float step = 4.5f * difference;
        ASSERT_EQ(out.view().f32()[i], uncond.view().f32()[i] + step) << row;
      }
      guidance(context.with_row("guidance", row),
               {.uncond = uncond, .cond = cond, .guidance_scale = 4.5f, .out = uncond});
      EXPECT_TRUE(uncond.same_bytes(out)) << row;
    }
  }
}

TEST(LatentsToDecoder, every_row_divides_then_adds_and_puts_channels_last) {
  TestContext context;
  for (const Shape& shape : {Shape{1, 1, 1, 1}, Shape{2, 16, 6, 10}, Shape{3, 4, 64, 5}}) {
    const TestTensor latents = TestTensor::random(kF32, shape, 1, 1.0f, 0.0f, 2);
    for (const DType dtype : {kF32, kBF16}) {
      for (const std::string_view row : context.rows(latents_to_decoder_table())) {
        const TestTensor out(dtype, {shape[0], shape[2], shape[3], shape[1]});
        latents_to_decoder(context.with_row("latents_to_decoder", row),
                           {.latents = latents, .scaling_factor = 1.5305f, .shift_factor = 0.0609f, .out = out});
        for (std::int64_t b = 0; b < shape[0]; ++b) {
          for (std::int64_t c = 0; c < shape[1]; ++c) {
            for (std::int64_t y = 0; y < shape[2]; ++y) {
              for (std::int64_t x = 0; x < shape[3]; ++x) {
                volatile float unscaled = Row(latents, {b, c, y})[x] / 1.5305f;
                const float value = unscaled + 0.0609f;
                ASSERT_EQ(Row(out, {b, y, x})[c], dtype == kF32 ? value : to_float(to_bfloat16(value))) << row;
              }
            }
          }
        }
      }
    }
  }
}

TEST(ToPixels, every_row_equals_the_reference) {
  TestContext context;
  for (const Shape& shape : {Shape{1, 1, 1, 3}, Shape{2, 7, 9, 3}, Shape{1, 130, 64, 3}}) {
    for (const DType dtype : {kF32, kBF16}) {
      const TestTensor x = TestTensor::random(dtype, shape, 1);
      const TestTensor expected(DType::kI8, shape);
      to_pixels(context.with_row("to_pixels", "reference"), {.x = x, .out = expected});
      for (const std::string_view row : context.rows(to_pixels_table())) {
        const TestTensor actual(DType::kI8, shape);
        to_pixels(context.with_row("to_pixels", row), {.x = x, .out = actual});
        EXPECT_TRUE(actual.same_bytes(expected)) << row << shape.to_string();
      }
    }
  }
}

TEST(ToPixels, the_ends_are_clamped_and_nan_is_black) {
  TestContext context;
  const float inputs[] = {-1.0f, 1.0f, 7.0f, -7.0f, kInfinity, -kInfinity, kNaN, 0.2f, -0.2f};
  const int expected[] = {0, 255, 255, 0, 255, 0, 0, 153, 102};
  for (const std::string_view row : context.rows(to_pixels_table())) {
    const TestTensor x(kF32, {1, 1, 3, 3});
    std::memcpy(x.view().data(), inputs, sizeof(inputs));
    const TestTensor out(DType::kI8, {1, 1, 3, 3});
    to_pixels(context.with_row("to_pixels", row), {.x = x, .out = out});
    const auto* bytes = static_cast<const std::uint8_t*>(out.view().data());
    for (int i = 0; i < 9; ++i) EXPECT_EQ(bytes[i], expected[i]) << row << " " << i;
  }
}

TEST(ToPixels, ties_go_to_the_even_neighbour) {
  // Inputs whose pixel value is exactly k + 1/2 in float, found among the neighbours of the real solution.
  std::vector<float> ties;
  std::vector<int> expected;
  for (int k = 127; k < 255; ++k) {
    float x = static_cast<float>((k + 0.5) / 255.0 * 2.0 - 1.0);
    for (int i = 0; i < 8; ++i) x = std::nextafter(x, -1.0f);
    for (int i = 0; i < 16; ++i, x = std::nextafter(x, 1.0f)) {
      volatile float half = x * 0.5f;
      volatile float unit = half + 0.5f;
      volatile float value = unit * 255.0f;
      if (value != static_cast<float>(k) + 0.5f) continue;
      ties.push_back(x);
      expected.push_back(k % 2 == 0 ? k : k + 1);
    }
  }
  ASSERT_GT(ties.size(), 30u);
  ties.resize(ties.size() / 3 * 3);
  const Shape shape{1, 1, static_cast<std::int64_t>(ties.size() / 3), 3};
  TestContext context;
  for (const std::string_view row : context.rows(to_pixels_table())) {
    const TestTensor out(DType::kI8, shape);
    to_pixels(context.with_row("to_pixels", row), {.x = TensorView(ties.data(), kF32, shape), .out = out});
    const auto* bytes = static_cast<const std::uint8_t*>(out.view().data());
    for (std::size_t i = 0; i < ties.size(); ++i) EXPECT_EQ(bytes[i], expected[i]) << row << " " << ties[i];
  }
}

TEST(CheckFinite, finds_one_bad_element_anywhere) {
  TestContext context;
  for (const std::string_view row : context.rows(check_finite_table())) {
    for (const std::int64_t count : {1, 15, 64, 133}) {
      const TestTensor x = TestTensor::random(kF32, {count}, 1, 1e30f);
      const TestTensor flag(DType::kI32, {1});
      const auto check = [&] {
        check_finite(context.with_row("check_finite", row), {.x = x, .all_finite = flag});
        return *flag.view().as<std::int32_t>();
      };
      EXPECT_EQ(check(), 1) << row;
      for (std::int64_t i = 0; i < count; ++i) {
        const float kept = x.view().f32()[i];
        for (const float bad : {kNaN, kInfinity, -kInfinity}) {
          x.view().f32()[i] = bad;
          EXPECT_EQ(check(), 0) << row << " " << i;
        }
        x.view().f32()[i] = kept;
      }
      EXPECT_EQ(check(), 1) << row;
    }
  }
}

TEST(BlendKnown, keeps_the_noised_picture_where_the_mask_is_zero_and_the_latents_where_it_is_one) {
  TestContext context;
  const Shape shape{2, 3, 4, 5};
  const TestTensor image = TestTensor::random(kF32, shape, 1);
  const TestTensor noise = TestTensor::random(kF32, shape, 2);
  const TestTensor before = TestTensor::random(kF32, shape, 3);
  const TestTensor mask(kF32, {2, 4, 5});
  for (std::int64_t i = 0; i < 40; ++i) mask.view().f32()[i] = i % 3 == 0 ? 1.0f : i % 3 == 1 ? 0.0f : 0.25f;
  for (const float sigma : {0.0f, 0.6f}) {
    for (const std::string_view row : context.rows(blend_known_table())) {
      const TestTensor latents = TestTensor::random(kF32, shape, 3);
      blend_known(context.with_row("blend_known", row),
                  {.image = image, .noise = noise, .mask = mask, .sigma = sigma, .latents = latents});
      for (std::int64_t i = 0; i < shape.element_count(); ++i) {
        const float m = mask.view().f32()[i / 60 * 20 + i % 20];
        const float x0 = image.view().f32()[i];
        const float known = sigma * noise.view().f32()[i] + (1.0f - sigma) * x0;
        const float drawn = before.view().f32()[i];
        const float expected = m == 1.0f ? drawn : m == 0.0f ? known : 0.75f * known + 0.25f * drawn;
        ASSERT_EQ(latents.view().f32()[i], expected) << row << " " << i;
      }
    }
  }
}

}  // namespace
}  // namespace octavo::ops
