// How much of what prompts assert is in the pictures of each run, as a judge read them.
#pragma once

#include <array>
#include <boost/json/object.hpp>
#include <string>
#include <vector>

#include "quantize/compare/comparison.h"
#include "quantize/judge/detector.h"

namespace octavo::quantize {

/// One kind of fact, or all.
struct AccuracyRow {
  std::string key;             // "all_facts"
  std::string title;           // "every fact of a picture right"
  int asked = 0;               // facts, or pictures
  std::array<int, 4> right{};  // by Run

  double percent(Run run) const { return asked > 0 ? 100.0 * right[static_cast<std::size_t>(run)] / asked : 0; }
};

struct TaskAccuracy {
  std::string judge;  // SHA-256 of the detector's file
  int pictures = 0;   // that have facts
  std::vector<AccuracyRow> rows;
};

/// Whether any prompt has facts. kInvalidArgument naming `flag`, the prompt and the fact that is none.
Result<bool> check_facts(const PromptFile& prompts, const std::string& flag);

/// Reads the pictures of all four runs from the work folder. Requires facts that check_facts() took, of one prompt at
/// least. kCancelled as compare_models().
Result<TaskAccuracy> judge_pictures(const Comparison& comparison, const Detector& detector,
                                    const ComparisonControl& control);

/// {"judge", "pictures", "asked": {key: count}, "a": {key: percent}, "b", "floor_f32", "floor_bf16"}.
boost::json::object to_json(const TaskAccuracy& accuracy);

}  // namespace octavo::quantize
