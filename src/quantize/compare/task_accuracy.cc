#include "quantize/compare/task_accuracy.h"

#include <algorithm>
#include <optional>

#include "quantize/judge/facts.h"

namespace octavo::quantize {
namespace {

constexpr std::array<Run, 4> kRuns = {Run::kA, Run::kF32, Run::kBf16, Run::kB};

/// Rows after those of the kinds.
enum : std::size_t { kAllFacts, kPicturesRight, kPicturesWithExtra };

void count(const std::vector<Fact>& facts, const Reading& reading, double width, double height, std::size_t run,
           std::vector<AccuracyRow>& rows) {
  const std::vector<FactColumn>& columns = fact_columns();
  AccuracyRow* whole = rows.data() + columns.size();
  bool all = true;
  for (const Fact& fact : facts) {
    const bool right = holds(fact, reading, width, height);
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const auto& kinds = columns[i].kinds;
      if (std::find(kinds.begin(), kinds.end(), fact.kind) == kinds.end()) continue;
      rows[i].right[run] += right;
      rows[i].asked += run == 0;
    }
    whole[kAllFacts].right[run] += right;
    whole[kAllFacts].asked += run == 0;
    all = all && right;
  }
  const bool extra = std::any_of(reading.things.begin(), reading.things.end(), [&](const SeenThing& thing) {
    return std::none_of(facts.begin(), facts.end(), [&](const Fact& fact) {
      return fact.kind == Fact::Kind::kObject && fact.object == thing.object;
    });
  });
  whole[kPicturesRight].right[run] += all;
  whole[kPicturesRight].asked += run == 0;
  whole[kPicturesWithExtra].right[run] += extra;
  whole[kPicturesWithExtra].asked += run == 0;
}

}  // namespace

Result<bool> check_facts(const PromptFile& prompts, const std::string& flag) {
  bool any = false;
  for (const PromptEntry& entry : prompts.entries) {
    if (entry.facts.is_null()) continue;
    const auto facts = parse_facts(entry.facts);
    if (!facts.ok()) return invalid_argument(flag, fmt::format("'{}': {}", entry.prompt, facts.status().message()));
    any = true;
  }
  return any;
}

Result<TaskAccuracy> judge_pictures(const Comparison& comparison, const Detector& detector,
                                    const ComparisonControl& control) {
  TaskAccuracy accuracy{.judge = detector.hash(), .pictures = 0, .rows = {}};
  for (const FactColumn& column : fact_columns()) accuracy.rows.push_back({column.key, column.title, 0, {}});
  accuracy.rows.push_back({"all_facts", "all facts", 0, {}});
  accuracy.rows.push_back({"pictures_right", "pictures with every fact right", 0, {}});
  accuracy.rows.push_back({"pictures_with_extra", "pictures with something extra", 0, {}});
  for (std::size_t index = 0; index < comparison.pictures.size(); ++index) {
    const PromptEntry& entry = comparison.prompts.entries[comparison.pictures[index].prompt];
    if (entry.facts.is_null()) continue;
    OCTAVO_ASSIGN_OR_RETURN(const std::vector<Fact> facts, parse_facts(entry.facts));
    ++accuracy.pictures;
    std::array<std::optional<Reading>, 4> seen;  // by the run that drew
    double width = 1, height = 1;
    for (const Run run : kRuns) {
      if (control.on_progress) control.on_progress({"reading", index, comparison.pictures.size(), 1, 1});
      if (control.cancel.cancelled()) return cancelled("the comparison was interrupted");
      std::optional<Reading>& reading = seen[static_cast<std::size_t>(comparison.source(run))];
      if (!reading) {
        OCTAVO_ASSIGN_OR_RETURN(const image::Image picture, comparison.picture(run, index));
        reading = detector.read(picture);
        const double shorter = std::min(picture.width, picture.height);
        width = picture.width / shorter;
        height = picture.height / shorter;
      }
      count(facts, *reading, width, height, static_cast<std::size_t>(run), accuracy.rows);
    }
  }
  return accuracy;
}

boost::json::object to_json(const TaskAccuracy& accuracy) {
  boost::json::object asked, runs[4];
  for (const AccuracyRow& row : accuracy.rows) {
    asked[row.key] = row.asked;
    for (const Run run : kRuns) {
      runs[static_cast<std::size_t>(run)][row.key] =
          row.asked > 0 ? boost::json::value(row.percent(run)) : boost::json::value();
    }
  }
  const auto of = [&runs](Run run) { return runs[static_cast<std::size_t>(run)]; };
  return {{"judge", accuracy.judge}, {"pictures", accuracy.pictures}, {"asked", std::move(asked)},   {"a", of(Run::kA)},
          {"b", of(Run::kB)},        {"floor_f32", of(Run::kF32)},    {"floor_bf16", of(Run::kBf16)}};
}

}  // namespace octavo::quantize
