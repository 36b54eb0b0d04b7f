#include "quantize/observer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <mutex>
#include <span>

#include "device/cpu/parallel_for.h"
#include "tensor/convert.h"

namespace octavo::quantize {
namespace {

constexpr int kKeptMantissa = 3;
static_assert(1 << kKeptMantissa == kBinsOfOctave);
constexpr int kDropped = 23 - kKeptMantissa;
constexpr std::int32_t kFirstRawBin = (127 + kSmallestExponent) << kKeptMantissa;
constexpr std::size_t kTables = 4;
constexpr std::int64_t kRowsOfThread = 16;

/// Sebastiano Vigna's SplitMix64 finaliser: neighbours come out unrelated.
std::uint64_t mix(std::uint64_t value) {
  value += 0x9E3779B97F4A7C15u;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
  return value ^ (value >> 31);
}

/// Token `token` of row `branch` of [B, T, K] as f32: itself, or converted into `buffer`.
const float* token_of(const TensorView& value, std::int64_t branch, std::int64_t token, std::vector<float>& buffer) {
  const auto* at =
      static_cast<const std::byte*>(value.data()) +
      static_cast<std::size_t>(branch * value.stride(0) + token * value.stride(1)) * dtype_size(value.dtype());
  if (value.dtype() == DType::kF32) return reinterpret_cast<const float*>(at);
  buffer.resize(static_cast<std::size_t>(value.dim(2)));
  convert_elements(at, value.dtype(), reinterpret_cast<std::byte*>(buffer.data()), DType::kF32, value.dim(2));
  return buffer.data();
}

}  // namespace

Observer::Observer(const std::string& label, const device::DeviceTraits& traits, const std::vector<Site>& sites,
                   Statistics& statistics)
    : traits_(traits), statistics_(statistics), velocity_tap_(label + ".velocity") {
  for (InputStatistics& input : statistics.inputs) {
    const Site* site = site_of(sites, input.layer);
    OCTAVO_CHECK(site != nullptr, "{} is at no site", input.layer);
    // Joined products tap once, by the name of their first: which that is depends on the block.
    const bool own_tap = site->producer == Site::Producer::kValues;
    for (const std::string& reader : site->readers) {
      if (!own_tap || reader == input.layer) inputs_[label + "." + reader + ".input"] = &input;
    }
  }
}

void Observer::begin_prompt(std::int64_t prompt) {
  prompt_ = prompt;
  step_ = 0;
}

void Observer::on_tensor(std::string_view path, const TensorView& value) {
  if (path == velocity_tap_) {
    ++step_;
    return;
  }
  const auto found = inputs_.find(path);
  if (found == inputs_.end()) return;
  InputStatistics& input = *found->second;
  OCTAVO_CHECK(step_ < statistics_.record.steps, "step {} of {}", step_ + 1, statistics_.record.steps);
  OCTAVO_CHECK(value.dim(-1) == input.channels, "{} has {} channels, not {}", path, value.dim(-1), input.channels);
  OCTAVO_CHECK(value.rank() == 3 && value.dim(0) == statistics_.branches, "{} is {}, not of {} branches", path,
               value.shape().to_string(), statistics_.branches);
  for (std::int64_t branch = 0; branch < value.dim(0); ++branch) {
    count(input, value, branch);
    sample(input, value, branch);
  }
}

void Observer::count(InputStatistics& input, const TensorView& value, std::int64_t branch) {
  const auto cell = static_cast<std::size_t>(step_ * statistics_.branches + branch);
  const std::span<std::int64_t> histogram(input.histogram.data() + cell * kBins, kBins);
  float& amax = input.amax[cell];
  const auto channels = static_cast<std::size_t>(input.channels);
  std::mutex merging;  // sums of counts and largest values are the same in any order
  device::parallel_for(traits_, value.dim(1), kRowsOfThread, [&](std::int64_t begin, std::int64_t end) {
    // Magnitudes as the bits of floats: those are in the order of the values.
    std::array<std::array<std::uint32_t, kBins>, kTables> bins{};
    std::vector<std::uint32_t> largest(channels, 0);
    std::vector<std::uint16_t> places((channels + kTables - 1) / kTables * kTables, 0);
    std::vector<float> buffer;
    for (std::int64_t token = begin; token < end; ++token) {
      const float* x = token_of(value, branch, token, buffer);
      for (std::size_t k = 0; k < channels; ++k) {
        const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(x[k]) & 0x7FFFFFFFu;
        largest[k] = std::max(largest[k], magnitude);
        const auto raw = static_cast<std::int32_t>(magnitude >> kDropped) - kFirstRawBin;
        places[k] = static_cast<std::uint16_t>(std::clamp<std::int32_t>(raw, 0, kBins - 1));
      }
      // Neighbours often fall into one bin: each of four has a table of its own, so that none waits for the other.
      std::size_t k = 0;
      for (; k + kTables <= channels; k += kTables) {
        for (std::size_t table = 0; table < kTables; ++table) ++bins[table][places[k + table]];
      }
      for (; k < channels; ++k) ++bins[0][places[k]];
    }
    const std::lock_guard lock(merging);
    for (const auto& table : bins) {
      for (std::size_t bin = 0; bin < kBins; ++bin) histogram[bin] += table[bin];
    }
    for (std::size_t k = 0; k < channels; ++k) {
      const auto most = std::bit_cast<float>(largest[k]);
      if (std::isnan(most)) {
        amax = input.channel_amax[k] = most;
      } else {
        input.channel_amax[k] = std::max(input.channel_amax[k], most);
        amax = std::max(amax, most);
      }
    }
  });
}

void Observer::sample(InputStatistics& input, const TensorView& value, std::int64_t branch) const {
  // The tokens with the smallest keys of all: the same ones whatever was seen first, a fair draw, and no counting.
  const auto channels = static_cast<std::size_t>(input.channels);
  const std::uint64_t place =
      mix(mix(mix(static_cast<std::uint64_t>(statistics_.record.seed)) ^ static_cast<std::uint64_t>(prompt_)) ^
          static_cast<std::uint64_t>(step_ * statistics_.branches + branch));
  std::vector<float> buffer;
  for (std::int64_t token = 0; token < value.dim(1); ++token) {
    const std::uint64_t key = mix(place ^ static_cast<std::uint64_t>(token));
    std::size_t at = input.sample_keys.size();
    if (at < kSampleRows) {
      input.sample_keys.push_back(key);
      input.sample.resize(input.sample.size() + channels);
    } else {
      const auto worst = std::max_element(input.sample_keys.begin(), input.sample_keys.end());
      if (key >= *worst) continue;
      *worst = key;
      at = static_cast<std::size_t>(worst - input.sample_keys.begin());
    }
    const float* x = token_of(value, branch, token, buffer);
    for (std::size_t k = 0; k < channels; ++k) input.sample[at * channels + k] = to_bfloat16(x[k]);
  }
}

}  // namespace octavo::quantize
