#include "sampling/noise.h"

#include <gtest/gtest.h>

#include <cmath>

namespace octavo::sampling {
namespace {

std::vector<float> draw(std::uint64_t seed, std::size_t count) {
  TorchCpuGenerator generator(seed);
  std::vector<float> values(count);
  generator.normal(values);
  return values;
}

TEST(TorchCpuGenerator, words_are_the_mersenne_twister_s) {
  // The 10000th word after the default seed, from the C++ standard ([rand.predef]).
  TorchCpuGenerator generator(5489);
  std::uint32_t word = 0;
  for (int i = 0; i < 10000; ++i) word = generator.next_word();
  EXPECT_EQ(word, 4123659995u);
}

TEST(TorchCpuGenerator, the_values_everyone_knows) {
  // torch.manual_seed(0); torch.randn(16), torch.randn(5) and torch.manual_seed(42); torch.randn(16).
  constexpr double kSeed0[] = {-1.1258, -1.1524, -0.2506, -0.4339, 0.8487, 0.6920, -0.3160, -2.1152,
                               0.3223,  -1.2633, 0.3500,  0.3081,  0.1198, 1.2377, 1.1168,  -0.2473};
  const std::vector<float> sixteen = draw(0, 16);
  for (std::size_t i = 0; i < 16; ++i) EXPECT_NEAR(sixteen[i], kSeed0[i], 5.1e-5) << i;
  constexpr double kShort[] = {1.5410, -0.2934, -2.1788, 0.5684, -1.0845};
  const std::vector<float> five = draw(0, 5);
  for (std::size_t i = 0; i < 5; ++i) EXPECT_NEAR(five[i], kShort[i], 5.1e-5) << i;
  constexpr double kSeed42[] = {1.9269, 1.4873, 0.9007, -2.1055, 0.6784, -1.2345, -0.0431, -1.6047};
  const std::vector<float> other = draw(42, 16);
  for (std::size_t i = 0; i < 8; ++i) EXPECT_NEAR(other[i], kSeed42[i], 5.1e-5) << i;
}

TEST(TorchCpuGenerator, only_the_low_half_of_the_seed_matters) {
  EXPECT_EQ(draw(7, 64), draw((std::uint64_t{1} << 32) + 7, 64));
  EXPECT_NE(draw(7, 64), draw(8, 64));
}

TEST(TorchCpuGenerator, a_tail_is_drawn_over_the_last_sixteen) {
  const std::vector<float> whole = draw(3, 32);
  const std::vector<float> ragged = draw(3, 37);
  for (std::size_t i = 0; i < 37 - 16; ++i) EXPECT_EQ(ragged[i], whole[i]) << i;
  bool moved = false;
  for (std::size_t i = 37 - 16; i < 32; ++i) moved = moved || ragged[i] != whole[i];
  EXPECT_TRUE(moved);
}

TEST(TorchCpuGenerator, values_are_standard_normal) {
  const std::vector<float> values = draw(123, 1 << 18);
  double sum = 0, squares = 0, fourth = 0;
  for (const float value : values) {
    ASSERT_TRUE(std::isfinite(value));
    sum += value;
    squares += static_cast<double>(value) * value;
    fourth += std::pow(static_cast<double>(value), 4);
  }
  const double count = static_cast<double>(values.size());
  EXPECT_NEAR(sum / count, 0.0, 0.01);
  EXPECT_NEAR(squares / count, 1.0, 0.01);
  EXPECT_NEAR(fourth / count, 3.0, 0.1);
}

TEST(TorchCpuGenerator, bytes_resume_the_stream_anywhere) {
  // After an odd number of double-precision values half a pair is cached.
  for (const std::size_t before : {std::size_t{0}, std::size_t{1}, std::size_t{5}, std::size_t{700}}) {
    TorchCpuGenerator generator(99);
    std::vector<float> values(before);
    generator.normal(values);
    std::vector<std::byte> bytes;
    generator.append_bytes(bytes);
    ASSERT_EQ(bytes.size(), TorchCpuGenerator::kStateBytes);
    TorchCpuGenerator resumed = TorchCpuGenerator::from_bytes(bytes).value();
    EXPECT_EQ(resumed, generator);
    for (const std::size_t count : {std::size_t{3}, std::size_t{50}}) {
      std::vector<float> expected(count);
      std::vector<float> actual(count);
      generator.normal(expected);
      resumed.normal(actual);
      EXPECT_EQ(actual, expected);
    }
  }
}

TEST(TorchCpuGenerator, impossible_bytes_are_refused) {
  std::vector<std::byte> bytes;
  TorchCpuGenerator(1).append_bytes(bytes);
  const auto code = [](std::span<const std::byte> state) {
    return TorchCpuGenerator::from_bytes(state).status().code();
  };
  EXPECT_EQ(code(bytes), ErrorCode::kOk);
  EXPECT_EQ(code(std::span(bytes).first(bytes.size() - 1)), ErrorCode::kDataCorruption);
  EXPECT_EQ(code({}), ErrorCode::kDataCorruption);
  std::vector<std::byte> position = bytes;
  position[4 * 624 + 1] = std::byte{0xFF};
  EXPECT_EQ(code(position), ErrorCode::kDataCorruption);
  std::vector<std::byte> flag = bytes;
  flag[4 * 624 + 4] = std::byte{2};
  EXPECT_EQ(code(flag), ErrorCode::kDataCorruption);
}

}  // namespace
}  // namespace octavo::sampling
