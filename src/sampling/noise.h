// Noise that a seed stands for: PyTorch's CPU generator, bit for bit, so that a seed gives the picture that
// diffusers (torch.Generator("cpu")) and ComfyUI draw with it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"

namespace octavo::sampling {

/// MT19937 (Matsumoto & Nishimura 1998) and PyTorch's way from its words to normal values. A value: copies continue
/// independently from where they were copied. One thread at a time.
class TorchCpuGenerator {
 public:
  /// Like torch.Generator("cpu").manual_seed(seed): only the low 32 bits matter.
  explicit TorchCpuGenerator(std::uint64_t seed);

  /// The next tempered 32-bit word.
  std::uint32_t next_word();

  /// torch.randn(out.size()) in float32. Two algorithms, as there: sixteen values and more go through groups of 16
  /// single-precision pairs (the polynomials of PyTorch's AVX2 build: what every x86 machine of the last ten years
  /// computes), fewer through double-precision pairs.
  void normal(std::span<float> out);

  static constexpr std::size_t kStateBytes = 4 * 624 + 4 + 1 + 8;
  /// Everything, little endian: words, position, cached value.
  void append_bytes(std::vector<std::byte>& out) const;
  /// kDataCorruption when `bytes` is not kStateBytes long or its position is out of range.
  static Result<TorchCpuGenerator> from_bytes(std::span<const std::byte> bytes);

  bool operator==(const TorchCpuGenerator& other) const = default;

 private:
  TorchCpuGenerator() = default;
  void refill();
  double next_double();
  void normal_in_groups(std::span<float> out);
  double next_double_normal();

  std::array<std::uint32_t, 624> words_{};
  std::uint32_t position_ = 624;         // next word; 624 = refill first
  std::optional<double> cached_normal_;  // second half of a double-precision pair
};

}  // namespace octavo::sampling
