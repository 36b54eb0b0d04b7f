#include "sampling/philox.h"

#include <cmath>

namespace octavo::sampling {

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  // Multipliers and Weyl increments of the paper's table 2 and section 4.
  constexpr std::uint64_t kMultiplier0 = 0xD2511F53;
  constexpr std::uint64_t kMultiplier1 = 0xCD9E8D57;
  constexpr int kRounds = 10;
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t product0 = kMultiplier0 * counter[0];
    const std::uint64_t product1 = kMultiplier1 * counter[2];
    const auto high = [](std::uint64_t product) { return static_cast<std::uint32_t>(product >> 32); };
    counter = {high(product1) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(product1),
               high(product0) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(product0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

void PhiloxGenerator::normal(std::span<float> out) {
  constexpr double kUnit = 0x1p-32;
  // 2 pi / 2^32 as the nearest float: the constant of cuRAND and of A1111.
  constexpr double kAngleUnit = static_cast<float>(0x1p-32 * 6.2831855);
  const std::array<std::uint32_t, 2> key = {static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32)};
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto words = philox4x32({calls_, 0, static_cast<std::uint32_t>(i), 0}, key);
    const double u = words[0] * kUnit + kUnit / 2;
    const double angle = words[1] * kAngleUnit + kAngleUnit / 2;
    out[i] = static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::sin(angle));
  }
  ++calls_;
}

void PhiloxGenerator::append_bytes(std::vector<std::byte>& out) const {
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<std::byte>(seed_ >> (8 * i)));
  for (int i = 0; i < 4; ++i) out.push_back(static_cast<std::byte>(calls_ >> (8 * i)));
}

Result<PhiloxGenerator> PhiloxGenerator::from_bytes(std::span<const std::byte> bytes) {
  if (bytes.size() != kStateBytes) return data_corruption("noise state", fmt::format("{} bytes", bytes.size()));
  std::uint64_t seed = 0;
  for (std::size_t i = 0; i < 8; ++i) seed |= static_cast<std::uint64_t>(bytes[i]) << (8 * i);
  PhiloxGenerator generator(seed);
  for (std::size_t i = 0; i < 4; ++i) generator.calls_ |= static_cast<std::uint32_t>(bytes[8 + i]) << (8 * i);
  return generator;
}

}  // namespace octavo::sampling
