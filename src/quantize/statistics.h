// Statistics: what calibration saw of every input of the quantised products. One file holds all of it, so that a
// calibration that was broken off goes on where it was and ends with the same bits.
//
// Memory, and the file's size: for each product's input `steps * branches * (kBins * 8 + 4)` bytes, and for each of its
// channels `kSampleRows * 2 + 4`. Stable Diffusion 3.5 Large with 28 steps and guidance: 0.2 GB; octavo-tiny: 9 MB.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "quantize/recipe.h"
#include "quantize/sites.h"

namespace octavo::quantize {

/// Magnitudes are counted in eighths of each factor of two from 2^-32 to 2^16; what is outside goes to the ends.
inline constexpr int kBinsOfOctave = 8;
inline constexpr int kSmallestExponent = -32;
inline constexpr int kBins = 48 * kBinsOfOctave;
/// Tokens kept whole for measuring errors, drawn from all prompts, steps and branches alike.
inline constexpr std::size_t kSampleRows = 64;

/// The upper edge of a bin.
float bin_edge(int bin);

/// One tensor that feeds products.
struct InputStatistics {
  std::string layer;  // whose tap it was: the site's name, or for attention's output each of its readers
  std::int64_t channels = 0;
  std::vector<float> amax;              // [steps, branches]
  std::vector<std::int64_t> histogram;  // [steps, branches, kBins]
  std::vector<float> channel_amax;      // [channels], over everything
  std::vector<BFloat16> sample;         // [up to kSampleRows, channels]
  std::vector<std::uint64_t> sample_keys;
  bool operator==(const InputStatistics& other) const;

  std::int64_t sample_rows() const { return static_cast<std::int64_t>(sample_keys.size()); }
  float largest() const;
  /// A magnitude that at most 1 - `fraction` of all values exceed: a bin's upper edge, or the largest value. Of one
  /// step (over branches), or of all.
  float percentile(double fraction) const;
  float percentile(double fraction, std::int64_t step, std::int64_t branches) const;
};

struct Statistics {
  CalibrationRecord record;  // `prompts`: how many there are to be
  std::int64_t branches = 1;
  std::int64_t finished_prompts = 0;
  std::vector<InputStatistics> inputs;
  bool operator==(const Statistics&) const = default;

  /// Nothing seen yet.
  static Statistics empty(const CalibrationRecord& record, std::int64_t branches, const std::vector<Site>& sites);
  /// The inputs behind a site: one, or for attention's output one a stream.
  std::vector<const InputStatistics*> of(const Site& site) const;

  /// All of it or nothing, beside the name first. kResourceExhausted when the disk cannot hold it.
  Status save(const std::filesystem::path& path) const;
  /// kNotFound, kDataCorruption naming the file.
  static Result<Statistics> load(const std::filesystem::path& path);
};

}  // namespace octavo::quantize
