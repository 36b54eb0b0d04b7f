// The noise of NVIDIA GPUs: what torch.randn draws on CUDA, as AUTOMATIC1111's random source "NV" defines it on any
// machine, so that a seed of a picture drawn there gives the same noise here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"

namespace octavo::sampling {

/// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four 32-bit
/// words that `counter` and `key` stand for.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

/// A value: copies continue independently. One thread at a time.
///
/// Call k of normal() gives element i the counter (k, 0, i, 0) under the seed's 64 bits as key and takes the first
/// value of the first Box-Muller pair: u = word 0 * 2^-32 + 2^-33, angle = word 1 * 2 pi / 2^32 + half a unit,
/// sqrt(-2 ln u) * sin(angle). CUDA does the same with one thread an element, which holds while a call has at most as
/// many elements as the GPU keeps threads (H100: 270,336; a picture of 1024 x 1024 has 262,144). The arithmetic is
/// A1111's: double, rounded to float at the end; the GPU's own is float, so its last bits differ.
class PhiloxGenerator {
 public:
  explicit PhiloxGenerator(std::uint64_t seed) : seed_(seed) {}

  void normal(std::span<float> out);

  static constexpr std::size_t kStateBytes = 8 + 4;
  /// Seed and number of calls, little endian.
  void append_bytes(std::vector<std::byte>& out) const;
  /// kDataCorruption when `bytes` is not kStateBytes long.
  static Result<PhiloxGenerator> from_bytes(std::span<const std::byte> bytes);

  bool operator==(const PhiloxGenerator& other) const = default;

 private:
  std::uint64_t seed_;
  std::uint32_t calls_ = 0;
};

}  // namespace octavo::sampling
