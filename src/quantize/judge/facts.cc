#include "quantize/judge/facts.h"

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <cmath>
#include <optional>
#include <sstream>

namespace octavo::quantize {
namespace {

namespace json = boost::json;

// As tools/tiny/facts.py, which says why.
constexpr double kApart = 0.08;
constexpr double kSmall = 0.45, kBig = 0.72;
constexpr double kSide = 0.08, kCentre = 0.12;

struct KindWord {
  const char* word;
  Fact::Kind kind;
};
constexpr KindWord kKinds[] = {
    {"object", Fact::Kind::kObject},     {"count", Fact::Kind::kCount}, {"background", Fact::Kind::kBackground},
    {"style", Fact::Kind::kStyle},       {"tint", Fact::Kind::kTint},   {"spot", Fact::Kind::kSpot},
    {"relation", Fact::Kind::kRelation}, {"size", Fact::Kind::kSize}};

constexpr int kMostRow = 1 << 20;

std::optional<int> row_of(const json::value& value) {
  if (!value.is_int64() || value.get_int64() < 0 || value.get_int64() > kMostRow) return {};
  return static_cast<int>(value.get_int64());
}

bool is_one_of(const json::value& value, std::initializer_list<const char*> words) {
  return value.is_string() &&
         std::any_of(words.begin(), words.end(), [&](const char* word) { return value.get_string() == word; });
}

bool is_spot(const json::value& value) {
  if (!value.is_string() || value.get_string().empty()) return false;
  std::istringstream words{std::string(value.get_string())};
  for (std::string word; words >> word;) {
    if (!is_one_of(json::string(word), {"left", "right", "top", "bottom", "center"})) return false;
  }
  return true;
}

std::optional<Fact> parse_fact(const json::value& value) {
  if (!value.is_array() || value.get_array().size() < 2 || !value.get_array()[0].is_string()) return {};
  const json::array& parts = value.get_array();
  const auto* found = std::find_if(std::begin(kKinds), std::end(kKinds),
                                   [&](const KindWord& row) { return parts[0].get_string() == row.word; });
  if (found == std::end(kKinds)) return {};
  Fact fact;
  fact.kind = found->kind;
  if (fact.kind == Fact::Kind::kBackground || fact.kind == Fact::Kind::kStyle) {
    if (parts.size() != 3 || !parts[2].is_array()) return {};
    for (const json::value& label : parts[2].get_array()) {
      const auto row = row_of(label);
      if (!row) return {};
      fact.labels.push_back(*row);
    }
    return fact;
  }
  const auto object = row_of(parts[1]);
  if (!object) return {};
  fact.object = *object;
  const std::size_t most = fact.kind == Fact::Kind::kObject                                       ? 2
                           : fact.kind == Fact::Kind::kRelation || fact.kind == Fact::Kind::kSize ? 4
                                                                                                  : 3;
  if (parts.size() != most) return {};
  std::optional<int> row;
  switch (fact.kind) {
    case Fact::Kind::kCount:
    case Fact::Kind::kTint:
      row = row_of(parts[2]);
      if (!row) return {};
      fact.number = *row;
      break;
    case Fact::Kind::kSpot:
      if (!is_spot(parts[2])) return {};
      fact.word = parts[2].get_string();
      break;
    case Fact::Kind::kRelation:
      row = row_of(parts[2]);
      if (!row || !is_one_of(parts[3], {"left", "right", "above", "below"})) return {};
      fact.other = *row;
      fact.word = parts[3].get_string();
      break;
    case Fact::Kind::kSize:
      if (!is_one_of(parts[2], {"small", "big"})) return {};
      fact.word = parts[2].get_string();
      if (parts[3].is_null()) break;
      row = row_of(parts[3]);
      if (!row) return {};
      fact.other = *row;
      break;
    default:
      break;
  }
  return fact;
}

bool related(const SeenThing& a, const SeenThing& b, const std::string& word) {
  if (word == "left") return a.x < b.x - kApart;
  if (word == "right") return a.x > b.x + kApart;
  if (word == "above") return a.y < b.y - kApart;
  return a.y > b.y + kApart;
}

bool in_spot(const SeenThing& thing, const std::string& spot, double width, double height) {
  const double x = thing.x / width - 0.5, y = thing.y / height - 0.5;
  std::istringstream words(spot);
  for (std::string word; words >> word;) {
    const bool there = word == "left"     ? x < -kSide
                       : word == "right"  ? x > kSide
                       : word == "top"    ? y < -kSide
                       : word == "bottom" ? y > kSide
                                          : std::abs(x) < kCentre && std::abs(y) < kCentre;
    if (!there) return false;
  }
  return true;
}

}  // namespace

Result<std::vector<Fact>> parse_facts(const json::value& list) {
  std::vector<Fact> facts;
  if (!list.is_array()) return invalid_argument("facts", "are not a list");
  for (const json::value& value : list.get_array()) {
    const auto fact = parse_fact(value);
    if (!fact) return invalid_argument("facts", json::serialize(value) + " is not a fact");
    facts.push_back(*fact);
  }
  return facts;
}

bool holds(const Fact& fact, const Reading& reading, double width, double height) {
  if (fact.kind == Fact::Kind::kBackground || fact.kind == Fact::Kind::kStyle) {
    return std::find(fact.labels.begin(), fact.labels.end(), reading.background) != fact.labels.end();
  }
  std::vector<SeenThing> those, others;
  for (const SeenThing& thing : reading.things) {
    if (thing.object == fact.object) those.push_back(thing);
    if (thing.object == fact.other) others.push_back(thing);
  }
  if (fact.kind == Fact::Kind::kCount) return static_cast<int>(those.size()) == fact.number;
  if (those.empty()) return false;
  const auto any = [&](const auto& test) { return std::any_of(those.begin(), those.end(), test); };
  const auto any_pair = [&](const auto& test) {
    return any([&](const SeenThing& a) {
      return std::any_of(others.begin(), others.end(), [&](const SeenThing& b) { return test(a, b); });
    });
  };
  switch (fact.kind) {
    case Fact::Kind::kTint:
      return !any([&](const SeenThing& thing) { return thing.tint != fact.number; });
    case Fact::Kind::kSpot:
      return any([&](const SeenThing& thing) { return in_spot(thing, fact.word, width, height); });
    case Fact::Kind::kRelation:
      return any_pair([&](const SeenThing& a, const SeenThing& b) { return related(a, b, fact.word); });
    case Fact::Kind::kSize: {
      const bool small = fact.word == "small";
      if (fact.other < 0) return any([&](const SeenThing& t) { return small ? t.size < kSmall : t.size > kBig; });
      return any_pair(
          [&](const SeenThing& a, const SeenThing& b) { return small ? a.size < b.size : a.size > b.size; });
    }
    default:
      return true;  // an object that is there
  }
}

const std::vector<FactColumn>& fact_columns() {
  using K = Fact::Kind;
  static const std::vector<FactColumn> columns = {{"object", "objects", {K::kObject}},
                                                  {"count", "their number", {K::kCount}},
                                                  {"background", "background", {K::kBackground}},
                                                  {"place", "place", {K::kRelation, K::kSpot}},
                                                  {"size", "size", {K::kSize}},
                                                  {"tint", "tint", {K::kTint}},
                                                  {"style", "studio", {K::kStyle}}};
  return columns;
}

}  // namespace octavo::quantize
