// LineChart: curves as inline SVG. Colours and type are CSS classes of the page that holds it.
#pragma once

#include <string>
#include <vector>

namespace octavo::quantize {

struct LineSeries {
  std::string label;           // plain text
  std::string css_class;       // of its line: "b", "floor"
  std::vector<double> values;  // at 0, 1, 2, ...; what is not finite is left out and breaks the line
};

/// Values of the same places, one line each, under a title for those who cannot see it.
struct LineChart {
  std::string title, x_label, y_label;
  std::vector<LineSeries> series;
  int first_x = 1;                   // what the first place is called
  std::vector<std::string> x_names;  // under some of the places instead; empty: numbers
};

/// "<svg>...</svg>", as wide as its surroundings. Never fails: without one finite value it says so.
std::string svg(const LineChart& chart);

/// Round steps for an axis over [low, high]: 1, 2 or 5 times a power of ten, at most `most` of them.
std::vector<double> axis_ticks(double low, double high, int most);

/// Text that is safe between tags and inside quoted attributes.
std::string escape_html(const std::string& text);

}  // namespace octavo::quantize
