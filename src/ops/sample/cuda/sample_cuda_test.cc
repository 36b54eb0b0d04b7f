#include <limits>

#include "ops/cuda/gpu_op_test.h"
#include "ops/sample/sample.h"

namespace octavo::ops {
namespace {

constexpr DType kF32 = DType::kF32;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(SampleCuda, lincomb_rounds_as_the_reference_and_may_write_over_its_input) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  for (const std::int64_t count : {1, 7, 1000, 40001}) {
    for (int terms = 1; terms <= 4; ++terms) {
      const float coefficients[] = {1.0f, -0.0142307f, 0.3f, 7.7f};
      std::vector<TestTensor> inputs;
      std::vector<GpuTensor> there;
      for (unsigned i = 0; i < 4; ++i) {
        inputs.push_back(TestTensor::random(kF32, {count}, i + 1));
        there.emplace_back(gpu, inputs.back());
      }
      const TestTensor out(kF32, {count});
      const GpuTensor gpu_out(gpu, out);
      LincombArgs on_cpu, on_gpu;
      for (std::size_t i = 0; i < static_cast<std::size_t>(terms); ++i) {
        on_cpu.terms[i] = {coefficients[i], inputs[i]};
        on_gpu.terms[i] = {coefficients[i], there[i]};
      }
      on_cpu.term_count = on_gpu.term_count = terms;
      on_cpu.out = out;
      on_gpu.out = gpu_out;
      lincomb(cpu.with_row("lincomb", "reference"), on_cpu);
      lincomb(gpu.get(), on_gpu);
      EXPECT_TRUE(gpu_out.download().same_bytes(out)) << count << " " << terms;
      on_gpu.out = there[0];
      lincomb(gpu.get(), on_gpu);
      EXPECT_TRUE(there[0].download().same_bytes(out)) << count << " " << terms;
    }
  }
}

TEST(SampleCuda, guidance_equals_the_reference_bit_for_bit) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  for (const std::int64_t count : {1, 31, 30000}) {
    const TestTensor uncond = TestTensor::random(kF32, {count}, 1), cond = TestTensor::random(kF32, {count}, 2);
    const TestTensor out(kF32, {count});
    const GpuTensor gpu_uncond(gpu, uncond), gpu_cond(gpu, cond), gpu_out(gpu, out);
    guidance(cpu.with_row("guidance", "reference"),
             {.uncond = uncond, .cond = cond, .guidance_scale = 4.5f, .out = out});
    guidance(gpu.get(), {.uncond = gpu_uncond, .cond = gpu_cond, .guidance_scale = 4.5f, .out = gpu_out});
    EXPECT_TRUE(gpu_out.download().same_bytes(out));
    guidance(gpu.get(), {.uncond = gpu_uncond, .cond = gpu_cond, .guidance_scale = 4.5f, .out = gpu_uncond});
    EXPECT_TRUE(gpu_uncond.download().same_bytes(out));
  }
}

TEST(SampleCuda, blend_known_equals_the_reference_bit_for_bit) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  const Shape shape{2, 3, 14, 50};
  const TestTensor image = TestTensor::random(kF32, shape, 1), noise = TestTensor::random(kF32, shape, 2);
  const TestTensor mask = TestTensor::random(kF32, {2, 14, 50}, 4, 0.3f, 0.5f);
  const GpuTensor gpu_image(gpu, image), gpu_noise(gpu, noise), gpu_mask(gpu, mask);
  for (const float sigma : {0.0f, 0.6f, 1.0f}) {
    const TestTensor latents = TestTensor::random(kF32, shape, 3);
    const GpuTensor there(gpu, latents);
    blend_known(cpu.with_row("blend_known", "reference"),
                {.image = image, .noise = noise, .mask = mask, .sigma = sigma, .latents = latents});
    blend_known(gpu.get(),
                {.image = gpu_image, .noise = gpu_noise, .mask = gpu_mask, .sigma = sigma, .latents = there});
    EXPECT_TRUE(there.download().same_bytes(latents)) << sigma;
  }
}

TEST(SampleCuda, latents_to_decoder_equals_the_reference_bit_for_bit) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  for (const Shape& shape : {Shape{1, 1, 1, 1}, Shape{2, 16, 6, 10}, Shape{3, 4, 64, 5}}) {
    for (const DType dtype : {kF32, DType::kBF16}) {
      const TestTensor latents = TestTensor::random(kF32, shape, 1, 1.0f, 0.0f, 2);
      const TestTensor out(dtype, {shape[0], shape[2], shape[3], shape[1]});
      const GpuTensor there(gpu, latents), gpu_out(gpu, out);
      latents_to_decoder(cpu.with_row("latents_to_decoder", "reference"),
                         {.latents = latents, .scaling_factor = 1.5305f, .shift_factor = 0.0609f, .out = out});
      latents_to_decoder(gpu.get(),
                         {.latents = there, .scaling_factor = 1.5305f, .shift_factor = 0.0609f, .out = gpu_out});
      EXPECT_TRUE(gpu_out.download().same_bytes(out));
    }
  }
}

TEST(SampleCuda, to_pixels_equals_the_reference_at_ties_and_ends_too) {
  OCTAVO_REQUIRE_GPU();
  TestContext cpu;
  GpuContext gpu;
  for (const Shape& shape : {Shape{1, 1, 1, 3}, Shape{2, 7, 9, 3}, Shape{1, 130, 64, 3}}) {
    for (const DType dtype : {kF32, DType::kBF16}) {
      const TestTensor x = TestTensor::random(dtype, shape, 1);
      const Row first(x, {0, 0, 0});
      first.set(0, kNaN);
      first.set(1, kInfinity);
      first.set(2, -kInfinity);
      const TestTensor out(DType::kI8, shape);
      const GpuTensor there(gpu, x), gpu_out(gpu, out);
      to_pixels(cpu.with_row("to_pixels", "reference"), {.x = x, .out = out});
      to_pixels(gpu.get(), {.x = there, .out = gpu_out});
      EXPECT_TRUE(gpu_out.download().same_bytes(out));
    }
  }
  // The neighbourhood of every half: ties are met.
  TestTensor x(kF32, {1, 1, 256 * 17, 3});
  float* values = x.view().f32();
  for (int k = 0; k < 256; ++k) {
    auto value = static_cast<float>((k + 0.5) / 255.0 * 2.0 - 1.0);
    for (int i = 0; i < 25; ++i) value = std::nextafter(value, -2.0f);
    for (int i = 0; i < 51; ++i, value = std::nextafter(value, 2.0f)) *values++ = value;
  }
  const TestTensor out(DType::kI8, x.view().shape());
  const GpuTensor there(gpu, x), gpu_out(gpu, out);
  to_pixels(cpu.with_row("to_pixels", "reference"), {.x = x, .out = out});
  to_pixels(gpu.get(), {.x = there, .out = gpu_out});
  EXPECT_TRUE(gpu_out.download().same_bytes(out));
}

TEST(SampleCuda, check_finite_finds_one_bad_element_anywhere) {
  OCTAVO_REQUIRE_GPU();
  GpuContext gpu;
  const GpuTensor flag(gpu, TestTensor(DType::kI32, {1}));
  for (const std::int64_t count : {1, 255, 262144, 400001}) {
    const auto check = [&](const TestTensor& x) {
      const GpuTensor there(gpu, x);
      check_finite(gpu.get(), {.x = there, .all_finite = flag});
      return *flag.download().view().as<std::int32_t>();
    };
    TestTensor x = TestTensor::random(kF32, {count}, 1, 1e30f);
    EXPECT_EQ(check(x), 1) << count;
    for (const std::int64_t at : {std::int64_t{0}, count / 2, count - 1}) {
      const float kept = x.view().f32()[at];
      for (const float bad : {kNaN, kInfinity, -kInfinity}) {
        x.view().f32()[at] = bad;
        EXPECT_EQ(check(x), 0) << count << " " << at;
      }
      x.view().f32()[at] = kept;
    }
    EXPECT_EQ(check(x), 1) << count;
  }
}

}  // namespace
}  // namespace octavo::ops
