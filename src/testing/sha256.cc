#include "testing/sha256.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

namespace octavo::testing {
namespace {

/// The first 32 bits of the fractional parts of roots of the first primes: square roots start the state, cube roots
/// are the round constants. Exact: a double's 52 bits hold the 4 bits before the point and the 32 after it.
template <std::size_t N, typename Root>
std::array<std::uint32_t, N> fractions_of_roots(Root root) {
  std::array<std::uint32_t, N> result{};
  std::size_t count = 0;
  for (int candidate = 2; count < N; ++candidate) {
    bool prime = true;
    for (int divisor = 2; divisor * divisor <= candidate; ++divisor) prime = prime && candidate % divisor != 0;
    if (!prime) continue;
    const double value = root(static_cast<double>(candidate));
    result[count++] = static_cast<std::uint32_t>((value - std::floor(value)) * 4294967296.0);
  }
  return result;
}

void compress(std::array<std::uint32_t, 8>& state, const std::byte* block) {
  static const auto constants = fractions_of_roots<64>([](double value) { return std::cbrt(value); });
  std::array<std::uint32_t, 64> w{};
  for (std::size_t i = 0; i < 16; ++i) {
    for (std::size_t j = 0; j < 4; ++j) w[i] = w[i] << 8 | static_cast<std::uint32_t>(block[4 * i + j]);
  }
  for (std::size_t i = 16; i < 64; ++i) {
    const std::uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
    const std::uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (std::size_t i = 0; i < 64; ++i) {
    const std::uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    const std::uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + constants[i] + w[i];
    const std::uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const std::uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = d + t1;
    d = c;
    c = b;
    b = a;
    a = t1 + t2;
  }
  const std::array<std::uint32_t, 8> added = {a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < 8; ++i) state[i] += added[i];
}

}  // namespace

std::string sha256_hex(std::span<const std::byte> bytes) {
  constexpr std::size_t kBlock = 64;
  auto state = fractions_of_roots<8>([](double value) { return std::sqrt(value); });
  std::size_t at = 0;
  for (; bytes.size() - at >= kBlock; at += kBlock) compress(state, bytes.data() + at);
  // What is left, a one bit, zeros, and the length in bits as the last eight bytes.
  std::array<std::byte, 2 * kBlock> tail{};
  const std::size_t left = bytes.size() - at;
  for (std::size_t i = 0; i < left; ++i) tail[i] = bytes[at + i];
  tail[left] = std::byte{0x80};
  const std::size_t length = left + 9 <= kBlock ? kBlock : 2 * kBlock;
  const std::uint64_t bits = static_cast<std::uint64_t>(bytes.size()) * 8;
  for (std::size_t i = 0; i < 8; ++i) tail[length - 1 - i] = static_cast<std::byte>(bits >> (8 * i));
  for (std::size_t i = 0; i < length; i += kBlock) compress(state, tail.data() + i);

  std::string text;
  for (const std::uint32_t word : state) {
    for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[word >> shift & 15u];
  }
  return text;
}

std::string sha256_hex(const std::string& text) { return sha256_hex(std::as_bytes(std::span(text))); }

}  // namespace octavo::testing
