// Why a LoRA is merged before weights become 8 bits, and never after.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tensor/quantized.h"
#include "weights/export/export.h"
#include "weights/export/matrix_source.h"
#include "weights/lora/merged_source.h"
#include "weights/test_files.h"

namespace octavo::quantize {
namespace {

constexpr std::int64_t kRows = 96, kInner = 256, kRank = 4;

/// Bell-shaped, from the index alone (the sum of four uniform numbers, deviation 1).
float bell(std::int64_t index, std::uint32_t key) {
  float sum = 0;
  auto state = static_cast<std::uint32_t>(index) * 2654435761u + key;
  for (int i = 0; i < 4; ++i) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    sum += static_cast<float>(state >> 8) / static_cast<float>(1 << 24) - 0.5f;
  }
  return sum * std::sqrt(3.0f);
}

std::vector<float> rounded(const std::vector<float>& values, DType format) {
  const Shape shape{kRows, kInner};
  std::vector<std::byte> codes(values.size());
  std::vector<float> scales(kRows), back(values.size());
  const QuantizedView quantized{TensorView(static_cast<void*>(codes.data()), format, shape),
                                TensorView(static_cast<void*>(scales.data()), DType::kF32, Shape{kRows}),
                                ScaleGrain::kRow};
  quantize_rows(TensorView(values.data(), DType::kF32, shape), quantized);
  dequantize_rows(quantized, TensorView(static_cast<void*>(back.data()), DType::kF32, shape));
  return back;
}

/// |a - b| / |delta|.
double error_by_delta(const std::vector<float>& a, const std::vector<float>& b, const std::vector<float>& delta) {
  double error = 0, power = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    power += static_cast<double>(delta[i]) * delta[i];
  }
  return std::sqrt(error / power);
}

/// How much of the delta is in a - b: 1 all of it, 0 nothing.
double share_of_delta(const std::vector<float>& a, const std::vector<float>& b, const std::vector<float>& delta) {
  double along = 0, power = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    along += (static_cast<double>(a[i]) - b[i]) * delta[i];
    power += static_cast<double>(delta[i]) * delta[i];
  }
  return along / power;
}

class MergeOrder : public ::testing::TestWithParam<DType> {};

TEST_P(MergeOrder, into_8_bits_loses_what_16_bits_keep) {
  const weights::test::TemporaryFolder folder;
  weights::test::MatrixSource base;
  base.add(
      "proj_out.weight", Shape{kRows, kInner}, [](std::int64_t i) { return bell(i, 1) / 16; }, DType::kBF16);
  std::vector<float> down(kRank * kInner), up(kRows * kRank);
  // Deltas of a hundredth of the weights: E4M3's step is a sixteenth to an eighth of the value.
  for (std::size_t i = 0; i < down.size(); ++i) down[i] = bell(static_cast<std::int64_t>(i), 2) / 16;
  for (std::size_t i = 0; i < up.size(); ++i) up[i] = bell(static_cast<std::int64_t>(i), 3) / 200;
  const auto path = folder / "lora.safetensors";
  const std::vector<weights::NamedTensor> pair = {
      {"proj_out.lora_A.weight", TensorView(down.data(), DType::kF32, Shape{kRank, kInner})},
      {"proj_out.lora_B.weight", TensorView(up.data(), DType::kF32, Shape{kRows, kRank})}};
  ASSERT_TRUE(weights::write_safetensors(path, pair).ok());
  const auto merged = weights::MergedSource::create(base, {{path, 1.0f}}).value();

  const std::vector<float> plain = base.floats(0);
  std::vector<float> exact(plain.size()), delta(plain.size());
  ASSERT_TRUE(merged->read(0, 0, 0, kRows * kInner, DType::kF32, reinterpret_cast<std::byte*>(exact.data())).ok());
  for (std::size_t i = 0; i < exact.size(); ++i) delta[i] = exact[i] - plain[i];

  const DType format = GetParam();
  const std::vector<float> before = rounded(plain, format);
  const std::vector<float> right = rounded(exact, format);  // merged in f32, rounded once
  std::vector<float> sum(plain.size());
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = before[i] + delta[i];
  const std::vector<float> wrong = rounded(sum, format);  // added to what was rounded, rounded again

  const double right_error = error_by_delta(right, exact, delta), wrong_error = error_by_delta(wrong, exact, delta);
  const double right_share = share_of_delta(right, before, delta), wrong_share = share_of_delta(wrong, before, delta);
  RecordProperty("right_error", fmt::format("{:.3f}", right_error));
  RecordProperty("wrong_error", fmt::format("{:.3f}", wrong_error));
  RecordProperty("right_share", fmt::format("{:.3f}", right_share));
  RecordProperty("wrong_share", fmt::format("{:.3f}", wrong_share));
  // The weights' own rounding, some times the delta, is the same both ways; what comes on top is the lost delta itself.
  EXPECT_GT(wrong_error * wrong_error - right_error * right_error, 0.5);
  EXPECT_NEAR(right_share, 1.0, 0.15);  // rounding is noise beside it
  EXPECT_LT(wrong_share, 0.5);          // most deltas do not reach half a step and are gone
}

INSTANTIATE_TEST_SUITE_P(formats, MergeOrder, ::testing::Values(DType::kE4M3, DType::kE5M2),
                         [](const auto& format) { return std::string(dtype_name(format.param)); });

}  // namespace
}  // namespace octavo::quantize
