// What A and the noise floor left, kept in a folder so that the next B is measured against the same without running
// them again. baseline.json is written last: without it the folder counts as empty.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <filesystem>
#include <optional>

#include "quantize/compare/comparison.h"

namespace octavo::quantize {

struct Baseline {
  ComparedModel floor_f32, floor_bf16;
  Run f32_source = Run::kF32, bf16_source = Run::kBf16;  // kA where A stands for it
  std::int64_t calls = 0;                                // of the transformer, a picture
};

/// All that A's and the floor's results depend on, of a comparison whose A is described and whose request is resolved.
boost::json::object baseline_key(const Comparison& comparison, const ComparisonOptions& options);

/// Nothing when the folder holds none yet. kFailedPrecondition (subject "--baseline") names the first member of `key`
/// in which the one that it holds differs; kDataCorruption when it holds something else.
Result<std::optional<Baseline>> read_baseline(const std::filesystem::path& folder, const boost::json::object& key);
Status write_baseline(const std::filesystem::path& folder, const boost::json::object& key, const Baseline& baseline);

}  // namespace octavo::quantize
