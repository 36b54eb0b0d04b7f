// Facts: what a caption asserts, and whether a picture as a detector read it shows that. The rules of
// tools/tiny/facts.py.
#pragma once

#include <array>
#include <boost/json/value.hpp>
#include <string>
#include <vector>

#include "base/status.h"
#include "quantize/judge/detector.h"

namespace octavo::quantize {

/// One fact. In a prompt file a list: its kind, then what it is about; numbers are rows of catalogue.py.
///   ["object", o]                ["count", o, n]               ["background", name, [labels that show it]]
///   ["style", name, [labels]]    ["tint", o, t]                ["spot", o, "top left"]
///   ["relation", o, other, "left" | "right" | "above" | "below"]
///   ["size", o, "small" | "big", other or null]
struct Fact {
  enum class Kind { kObject, kCount, kBackground, kStyle, kTint, kSpot, kRelation, kSize };
  Kind kind = Kind::kObject;
  int object = 0;
  int other = -1;           // kRelation, kSize: another object; -1 = none
  int number = 0;           // kCount, kTint
  std::string word;         // kSpot, kRelation, kSize
  std::vector<int> labels;  // kBackground, kStyle
};

/// kInvalidArgument says which fact is none.
Result<std::vector<Fact>> parse_facts(const boost::json::value& list);

/// `width` and `height` of the picture, in units of the shorter side.
bool holds(const Fact& fact, const Reading& reading, double width, double height);

/// The columns of the table: kinds of facts under the names people know.
struct FactColumn {
  const char* key;
  const char* title;
  std::vector<Fact::Kind> kinds;
};
const std::vector<FactColumn>& fact_columns();

}  // namespace octavo::quantize
