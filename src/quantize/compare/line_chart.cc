#include "quantize/compare/line_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace octavo::quantize {
namespace {

constexpr double kWidth = 760, kHeight = 300, kLeft = 58, kRight = 14, kTop = 14, kBottom = 46;
constexpr int kMostTicks = 7;

std::string tick_label(double value, double step) {
  const int decimals = std::max(0, static_cast<int>(-std::floor(std::log10(step) + 1e-9)));
  return fmt::format("{:.{}f}", value == 0 ? 0.0 : value, decimals);
}

}  // namespace

std::string escape_html(const std::string& text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        // Control characters are not allowed in HTML; white space is.
        out += static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t' ? '?' : c;
    }
  }
  return out;
}

std::vector<double> axis_ticks(double low, double high, int most) {
  if (!(high > low)) return {low};
  double step = std::pow(10, std::floor(std::log10((high - low) / most)));
  for (const double factor : {1.0, 2.0, 5.0, 10.0}) {
    if (std::floor(high / (step * factor)) - std::ceil(low / (step * factor)) + 1 <= most) {
      step *= factor;
      break;
    }
  }
  std::vector<double> ticks;
  for (double n = std::ceil(low / step); n <= std::floor(high / step); ++n) ticks.push_back(n * step);
  return ticks;
}

std::string svg(const LineChart& chart) {
  double low = 0, high = 0;
  std::size_t places = 0;
  bool any = false;
  for (const LineSeries& series : chart.series) {
    places = std::max(places, series.values.size());
    for (const double value : series.values) {
      if (!std::isfinite(value)) continue;
      low = any ? std::min(low, value) : value;
      high = any ? std::max(high, value) : value;
      any = true;
    }
  }
  std::string out = fmt::format("<svg class=\"chart\" viewBox=\"0 0 {} {}\" role=\"img\"><title>{}</title>", kWidth,
                                kHeight, escape_html(chart.title));
  if (!any) {
    out +=
        fmt::format("<text class=\"axis\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">no difference to draw</text></svg>",
                    kWidth / 2, kHeight / 2);
    return out;
  }
  const double room = high > low ? 0.06 * (high - low) : std::max(1.0, std::abs(high) * 0.1);
  low -= room;
  high += room;
  const auto x_of = [&](double place) {
    return kLeft + (kWidth - kLeft - kRight) * (places > 1 ? place / static_cast<double>(places - 1) : 0.5);
  };
  const auto y_of = [&](double value) {
    return kTop + (kHeight - kTop - kBottom) * (1 - (value - low) / (high - low));
  };
  const std::vector<double> ticks = axis_ticks(low, high, kMostTicks);
  const double step = ticks.size() > 1 ? ticks[1] - ticks[0] : 1;
  for (const double tick : ticks) {
    out += fmt::format(
        "<line class=\"grid\" x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>"
        "<text class=\"axis\" x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\">{5}</text>",
        kLeft, kWidth - kRight, y_of(tick), kLeft - 8, y_of(tick) + 4, tick_label(tick, step));
  }
  const std::size_t every = std::max<std::size_t>(1, (places + 13) / 14);
  for (std::size_t place = 0; place < places; place += every) {
    const std::string name =
        place < chart.x_names.size() ? chart.x_names[place] : std::to_string(chart.first_x + static_cast<int>(place));
    out += fmt::format("<text class=\"axis\" x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                       x_of(static_cast<double>(place)), kHeight - kBottom + 18, escape_html(name));
  }
  out += fmt::format("<text class=\"axis\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                     (kLeft + kWidth - kRight) / 2, kHeight - 6, escape_html(chart.x_label));
  out += fmt::format("<text class=\"axis\" transform=\"translate(14 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
                     (kTop + kHeight - kBottom) / 2, escape_html(chart.y_label));
  for (const LineSeries& series : chart.series) {
    std::string path, dots;
    bool pen_down = false;
    for (std::size_t i = 0; i < series.values.size(); ++i) {
      if (!std::isfinite(series.values[i])) {
        pen_down = false;
        continue;
      }
      const double x = x_of(static_cast<double>(i)), y = y_of(series.values[i]);
      path += fmt::format("{}{:.1f} {:.1f}", pen_down ? "L" : "M", x, y);
      if (places <= 60)
        dots += fmt::format("<circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.2\"/>",
                            escape_html(series.css_class), x, y);
      pen_down = true;
    }
    out += fmt::format("<path class=\"{}\" d=\"{}\"><title>{}</title></path>{}", escape_html(series.css_class), path,
                       escape_html(series.label), dots);
  }
  out += "</svg><p class=\"legend\">";
  for (const LineSeries& series : chart.series) {
    out += fmt::format(
        "<span class=\"key\"><svg viewBox=\"0 0 26 8\" aria-hidden=\"true\"><path class=\"{}\" "
        "d=\"M1 4L25 4\"/></svg>{}</span>",
        escape_html(series.css_class), escape_html(series.label));
  }
  return out + "</p>";
}

}  // namespace octavo::quantize
