// report.json: every figure of a comparison, by prompt, seed and step. Without times or dates: the same models, prompts
// and processor give the same bytes.
#pragma once

#include <boost/json/object.hpp>
#include <string>

#include "quantize/compare/comparison.h"

namespace octavo::quantize {

inline constexpr int kReportFormatVersion = 1;

/// `tool` is "octavo <version>"; `accuracy` is null or what task_accuracy.h makes. Infinite figures (no difference)
/// are null.
boost::json::object report_json(const Comparison& comparison, const std::string& tool,
                                const boost::json::value& accuracy);

boost::json::object to_json(const ComparedModel& model);

/// As text: one line a member, one line a picture and step.
std::string report_text(const boost::json::object& report);

/// The calls of the transformer in order, over all pictures: what the curves of a report show.
struct CallSummary {
  int step = 0;
  float sigma = 0;
  Spread sqnr_db, cosine, relative_l2;
};
std::vector<CallSummary> call_summaries(const Comparison& comparison, PictureErrors ComparedPicture::*which);

}  // namespace octavo::quantize
