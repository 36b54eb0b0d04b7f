// How much of what prompts assert is in the pictures of each run, as a judge read them.
#pragma once

#include <array>
#include <boost/json/value.hpp>
#include <string>
#include <vector>

#include "quantize/compare/comparison.h"

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

}  // namespace octavo::quantize
