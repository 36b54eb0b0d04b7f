#include "tensor/convert.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "tensor/float8.h"

namespace octavo {
namespace {

constexpr std::array kFloating = {DType::kF32, DType::kF16, DType::kBF16, DType::kE4M3, DType::kE5M2};

std::vector<std::byte> converted(const std::byte* from, DType from_dtype, DType to_dtype, std::int64_t count) {
  std::vector<std::byte> to(static_cast<std::size_t>(count) * dtype_size(to_dtype));
  convert_elements(from, from_dtype, to.data(), to_dtype, count);
  return to;
}

TEST(Convert, values_that_both_types_hold_survive_every_pair_of_types) {
  // More than one block of the implementation, at an odd address.
  std::vector<float> values;
  for (int i = 0; i < 2500; ++i) values.push_back(static_cast<float>(i % 7 - 3) * 0.25f);
  const auto count = static_cast<std::int64_t>(values.size());
  for (const DType first : kFloating) {
    const auto stored = converted(reinterpret_cast<const std::byte*>(values.data()), DType::kF32, first, count);
    std::vector<std::byte> odd(stored.size() + 1);
    std::memcpy(odd.data() + 1, stored.data(), stored.size());
    for (const DType second : kFloating) {
      const auto other = converted(odd.data() + 1, first, second, count);
      const auto back = converted(other.data(), second, DType::kF32, count);
      EXPECT_EQ(std::memcmp(back.data(), values.data(), back.size()), 0)
          << dtype_name(first) << " to " << dtype_name(second);
    }
  }
}

TEST(Convert, narrowing_rounds_as_the_single_conversions_do) {
  const std::array<float, 4> values = {0.1f, -3.3f, 1e9f, 1e-9f};
  const auto* from = reinterpret_cast<const std::byte*>(values.data());
  const auto half = converted(from, DType::kF32, DType::kF16, 4);
  const auto eight = converted(from, DType::kF32, DType::kE4M3, 4);
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, half.data() + 2 * i, 2);
    EXPECT_EQ(bits, to_float16(values[i]).bits);
    EXPECT_EQ(static_cast<std::uint8_t>(eight[i]), to_float8_e4m3(values[i]).bits);
  }
}

TEST(Convert, equal_types_copy_bytes_and_integers_do_not_become_numbers) {
  const std::array<std::uint16_t, 2> nan_payloads = {0x7F81, 0xFF83};
  const auto copy = converted(reinterpret_cast<const std::byte*>(nan_payloads.data()), DType::kBF16, DType::kBF16, 2);
  EXPECT_EQ(std::memcmp(copy.data(), nan_payloads.data(), copy.size()), 0);
  const std::array<std::int8_t, 2> integers = {-1, 5};
  std::array<std::byte, 8> out{};
  EXPECT_THROW(
      convert_elements(reinterpret_cast<const std::byte*>(integers.data()), DType::kI8, out.data(), DType::kF32, 2),
      CheckFailure);
}

}  // namespace
}  // namespace octavo
