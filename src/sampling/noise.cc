#include "sampling/noise.h"

#include <bit>
#include <cmath>
#include <numbers>

namespace octavo::sampling {
namespace {

constexpr std::size_t kWords = 624;
constexpr std::size_t kGroup = 16;
constexpr float kUniformUnit = 0x1p-24f;
constexpr std::uint32_t kUniformMask = 0xFFFFFF;

// The logarithm, sine and cosine below are the single-precision Cephes ones (Moshier, netlib.org/cephes: logf.c,
// sinf.c) in the form PyTorch's AVX2 kernels use them. Where PyTorch's compiler fuses a product and a sum, so do we,
// explicitly: the fusions change the last bit of one value in a hundred, and were found by comparison with
// torch.randn (torch 2.15, x86, AVX2 and AVX-512 machines alike).

/// ln(x) for x in [2^-24, 1].
float cephes_log(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  float exponent = static_cast<float>(static_cast<std::int32_t>(bits >> 23) - 126);
  float m = std::bit_cast<float>((bits & 0x007FFFFFu) | 0x3F000000u);  // mantissa in [0.5, 1)
  if (m < 0.707106781186547524f) {
    exponent -= 1.0f;
    m = (m - 1.0f) + m;
  } else {
    m -= 1.0f;
  }
  constexpr std::array<float, 8> kCoefficients = {-1.1514610310e-1f, 1.1676998740e-1f,  -1.2420140846e-1f,
                                                  1.4249322787e-1f,  -1.6668057665e-1f, 2.0000714765e-1f,
                                                  -2.4999993993e-1f, 3.3333331174e-1f};
  const float square = m * m;
  float y = 7.0376836292e-2f;
  for (const float coefficient : kCoefficients) y = std::fma(y, m, coefficient);
  y = std::fma(y * m, square, exponent * -2.12194440e-4f);
  y = std::fma(-square, 0.5f, y);
  return std::fma(exponent, 0.693359375f, m + y);
}

/// cos(x) and sin(x) for x in [0, 2 pi].
struct CosSin {
  float cosine;
  float sine;
};
CosSin cephes_cos_sin(float x) {
  const std::int32_t octant = (static_cast<std::int32_t>(x * 1.27323954473516f) + 1) & ~1;  // x * 4 / pi, to even
  const auto turns = static_cast<float>(octant);
  // pi / 4 in three parts (Cody and Waite).
  x = std::fma(turns, -0.78515625f, x);
  x = std::fma(turns, -2.4187564849853515625e-4f, x);
  x = std::fma(turns, -3.77489497744594108e-8f, x);
  const float square = x * x;
  float c = std::fma(2.443315711809948e-5f, square, -1.388731625493765e-3f);
  c = std::fma(c, square, 4.166664568298827e-2f);
  c = std::fma(c * square, square, -(square * 0.5f)) + 1.0f;
  float s = std::fma(-1.9515295891e-4f, square, 8.3321608736e-3f);
  s = std::fma(s, square, -1.6666654611e-1f);
  s = std::fma(s * square, x, x);
  const bool swapped = (octant & 2) != 0;
  const bool sine_negative = (octant & 4) != 0;
  const bool cosine_negative = ((octant - 2) & 4) == 0;
  const float cosine = swapped ? s : c;
  const float sine = swapped ? c : s;
  return {cosine_negative ? -cosine : cosine, sine_negative ? -sine : sine};
}

/// Sixteen uniforms become sixteen normals in place (Box and Muller 1958): 0..7 are radii, 8..15 angles.
void box_muller_group(float* values) {
  constexpr auto kTwoPi = static_cast<float>(2.0 * std::numbers::pi);
  for (std::size_t i = 0; i < kGroup / 2; ++i) {
    const float radius = std::sqrt(-2.0f * cephes_log(1.0f - values[i]));
    const CosSin angle = cephes_cos_sin(kTwoPi * values[i + kGroup / 2]);
    values[i] = radius * angle.cosine + 0.0f;  // + 0: no negative zero, as there
    values[i + kGroup / 2] = radius * angle.sine + 0.0f;
  }
}

}  // namespace

TorchCpuGenerator::TorchCpuGenerator(std::uint64_t seed) {
  words_[0] = static_cast<std::uint32_t>(seed);
  for (std::uint32_t j = 1; j < kWords; ++j) {
    words_[j] = 1812433253u * (words_[j - 1] ^ (words_[j - 1] >> 30)) + j;
  }
}

void TorchCpuGenerator::refill() {
  constexpr std::size_t kOffset = 397;
  for (std::size_t i = 0; i < kWords; ++i) {
    const std::uint32_t joined = (words_[i] & 0x80000000u) | (words_[(i + 1) % kWords] & 0x7FFFFFFFu);
    words_[i] = words_[(i + kOffset) % kWords] ^ (joined >> 1) ^ ((joined & 1u) != 0 ? 0x9908B0DFu : 0u);
  }
  position_ = 0;
}

std::uint32_t TorchCpuGenerator::next_word() {
  if (position_ == kWords) refill();
  std::uint32_t word = words_[position_++];
  word ^= word >> 11;
  word ^= (word << 7) & 0x9D2C5680u;
  word ^= (word << 15) & 0xEFC60000u;
  return word ^ (word >> 18);
}

double TorchCpuGenerator::next_double() {
  const std::uint64_t high = next_word();
  const std::uint64_t low = next_word();
  constexpr std::uint64_t kMask = (std::uint64_t{1} << 53) - 1;
  return static_cast<double>(((high << 32) | low) & kMask) * 0x1p-53;
}

double TorchCpuGenerator::next_double_normal() {
  if (cached_normal_.has_value()) {
    const double value = *cached_normal_;
    cached_normal_.reset();
    return value;
  }
  const double angle = 2.0 * std::numbers::pi * next_double();
  const double radius = std::sqrt(-2.0 * std::log1p(-next_double()));
  cached_normal_ = radius * std::sin(angle);
  return radius * std::cos(angle);
}

void TorchCpuGenerator::normal_in_groups(std::span<float> out) {
  const auto uniform = [this] { return static_cast<float>(next_word() & kUniformMask) * kUniformUnit; };
  for (float& value : out) value = uniform();
  for (std::size_t begin = 0; begin + kGroup <= out.size(); begin += kGroup) box_muller_group(&out[begin]);
  if (out.size() % kGroup != 0) {  // the last sixteen are drawn anew, over what is there
    const std::span<float> last = out.last(kGroup);
    for (float& value : last) value = uniform();
    box_muller_group(last.data());
  }
}

void TorchCpuGenerator::normal(std::span<float> out) {
  if (out.size() >= kGroup) {
    normal_in_groups(out);
  } else {
    for (float& value : out) value = static_cast<float>(next_double_normal());
  }
}

void TorchCpuGenerator::append_bytes(std::vector<std::byte>& out) const {
  const auto append = [&out](std::uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) out.push_back(static_cast<std::byte>(value >> (8 * i)));
  };
  for (const std::uint32_t word : words_) append(word, 4);
  append(position_, 4);
  append(cached_normal_.has_value() ? 1 : 0, 1);
  append(std::bit_cast<std::uint64_t>(cached_normal_.value_or(0.0)), 8);
}

Result<TorchCpuGenerator> TorchCpuGenerator::from_bytes(std::span<const std::byte> bytes) {
  constexpr const char* kSubject = "noise state";
  if (bytes.size() != kStateBytes) return data_corruption(kSubject, fmt::format("{} bytes", bytes.size()));
  std::size_t offset = 0;
  const auto read = [&bytes, &offset](int count) {
    std::uint64_t value = 0;
    for (int i = 0; i < count; ++i) value |= static_cast<std::uint64_t>(bytes[offset++]) << (8 * i);
    return value;
  };
  TorchCpuGenerator generator;
  for (std::uint32_t& word : generator.words_) word = static_cast<std::uint32_t>(read(4));
  generator.position_ = static_cast<std::uint32_t>(read(4));
  if (generator.position_ > kWords) return data_corruption(kSubject, fmt::format("position {}", generator.position_));
  const std::uint64_t is_cached = read(1);
  const std::uint64_t cached = read(8);
  if (is_cached > 1 || (is_cached == 0 && cached != 0)) return data_corruption(kSubject, "an impossible cached value");
  if (is_cached == 1) generator.cached_normal_ = std::bit_cast<double>(cached);
  return generator;
}

}  // namespace octavo::sampling
