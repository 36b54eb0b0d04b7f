// report.html: a comparison for people. One file, no script, nothing fetched; light or dark as the reader's screen.
#pragma once

#include <optional>
#include <string>

#include "quantize/compare/comparison.h"
#include "quantize/compare/task_accuracy.h"

namespace octavo::quantize {

struct HtmlOptions {
  std::string tool;                      // "octavo <version>"
  std::size_t most_pictures = 24;        // shown, the furthest apart first
  std::optional<TaskAccuracy> accuracy;  // shown when it is there
};

/// Reads the pictures from the comparison's work folder; errors are of reading them.
Result<std::string> report_html(const Comparison& comparison, const HtmlOptions& options);

}  // namespace octavo::quantize
