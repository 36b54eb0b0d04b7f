#include "tensor/float8.h"

#include <limits>

namespace octavo {
namespace {

constexpr float power_of_two(int exponent) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(exponent + 127) << 23);
}

constexpr std::array<float, 256> decode_all(int mantissa_bits, int bias, bool has_infinity) {
  std::array<float, 256> values{};
  const int steps = 1 << mantissa_bits;
  const int top_exponent = 0x7F >> mantissa_bits;
  for (int code = 0; code < 128; ++code) {
    const int exponent = code >> mantissa_bits;
    const int mantissa = code & (steps - 1);
    float value = exponent == 0 ? static_cast<float>(mantissa) * power_of_two(1 - bias - mantissa_bits)
                                : static_cast<float>(steps + mantissa) * power_of_two(exponent - bias - mantissa_bits);
    if (has_infinity && exponent == top_exponent) {
      value = mantissa == 0 ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
    }
    if (!has_infinity && code == 0x7F) value = std::numeric_limits<float>::quiet_NaN();
    values[static_cast<std::size_t>(code)] = value;
    values[static_cast<std::size_t>(code) + 128] = -value;
  }
  return values;
}

}  // namespace

constinit const std::array<float, 256> kE4M3Values = decode_all(3, 7, false);
constinit const std::array<float, 256> kE5M2Values = decode_all(2, 15, true);

}  // namespace octavo
