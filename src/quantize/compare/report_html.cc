#include "quantize/compare/report_html.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <cmath>
#include <numeric>

#include "image/base64.h"
#include "image/codec.h"
#include "quantize/compare/line_chart.h"
#include "quantize/compare/picture_error.h"
#include "quantize/compare/report_json.h"

namespace octavo::quantize {
namespace {

constexpr const char* kStyle = R"css(
:root{--ground:#fbfaf8;--card:#fff;--ink:#1d1c1a;--soft:#6a6660;--line:#e3dfd8;--a:#2f6f6a;--b:#b4472e;--floor:#8a8580;
--good:#2f6f6a;--bad:#b4472e}
@media(prefers-color-scheme:dark){:root{--ground:#171614;--card:#201f1c;--ink:#eae6df;--soft:#a09a91;--line:#37342f;
--a:#6cb8b0;--b:#ef8a6c;--floor:#928c84;--good:#6cb8b0;--bad:#ef8a6c}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
font-variant-numeric:tabular-nums}
main{max-width:1080px;margin:0 auto;padding:48px 24px 96px}
h1{font-size:30px;line-height:1.2;letter-spacing:-.02em;margin:0 0 8px;font-weight:650}
h2{font-size:20px;letter-spacing:-.01em;margin:56px 0 12px;font-weight:650}
p{margin:0 0 12px;max-width:74ch}
.soft,figcaption,.axis{color:var(--soft)}
.lead{font-size:18px;margin-top:20px}
b{font-weight:650}
table{border-collapse:collapse;width:100%;background:var(--card);border:1px solid var(--line);border-radius:10px;
overflow:hidden;font-size:15px}
.wide{overflow-x:auto}
th,td{padding:9px 14px;text-align:right;border-top:1px solid var(--line);font-weight:400;white-space:nowrap}
thead th{border-top:0;color:var(--soft);font-size:13px}
th:first-child,td:first-child{text-align:left}
tbody th{font-weight:500}
td.main{font-weight:650}
td.text{white-space:normal;overflow-wrap:anywhere;text-align:left;min-width:14em}
td.words{white-space:normal;min-width:9em}
.edge{border-left:1px solid var(--line)}
.of-a{color:var(--a)}.of-b{color:var(--b)}.of-floor{color:var(--floor)}
.chart{display:block;width:100%;height:auto;background:var(--card);border:1px solid var(--line);border-radius:10px}
.chart text{font-size:12px;fill:var(--soft)}
.grid{stroke:var(--line);stroke-width:1}
path{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
path.b,path.b-worst{stroke:var(--b)}path.floor,path.floor-worst{stroke:var(--floor)}
path.b-worst,path.floor-worst{stroke-width:1.4;stroke-dasharray:5 4}
circle.b,circle.b-worst{fill:var(--b)}circle.floor,circle.floor-worst{fill:var(--floor)}
circle.b-worst,circle.floor-worst{r:1.4px}
.legend{display:flex;flex-wrap:wrap;gap:6px 22px;font-size:14px;color:var(--soft);margin:10px 2px 0}
.key{display:inline-flex;align-items:center;gap:8px}.key svg{width:26px;height:8px}
.pair{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px;margin:0 0 20px}
.pair h3{margin:0 0 4px;font-size:16px;font-weight:600;overflow-wrap:anywhere;white-space:pre-wrap}
.pair .facts{font-size:14px;color:var(--soft);margin:0 0 12px;max-width:none}
.three{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:12px}
figure{margin:0}
figure img{display:block;width:100%;height:auto;border-radius:6px;background:#000}
figcaption{font-size:13px;margin-top:6px}
code{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:6px 20px;margin:0;font-size:15px}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
@media(max-width:640px){main{padding:28px 14px 64px}dl{grid-template-columns:1fr}dd{margin-bottom:8px}}
@media print{.pair,table,.chart{break-inside:avoid}}
)css";

// Pictures up to this are shown without loss; larger ones would make a page of hundreds of megabytes.
constexpr int kMostLosslessPixels = 512 * 512;
constexpr int kShownQuality = 90;
constexpr double kShareWithinRange = 0.99;  // edges differ most and may be white

std::string number(double value, int decimals) {
  if (std::isnan(value)) return "–";
  if (std::isinf(value)) return value > 0 ? "∞" : "−∞";
  std::string text = fmt::format("{:.{}f}", value, decimals);
  if (text[0] == '-') text.replace(0, 1, "−");
  return text;
}

std::string with_unit(double value, const Figure& figure) {
  return number(value, figure.decimals) + (*figure.unit ? std::string(" ") + figure.unit : "");
}

/// How B's figure stands beside the floor's, in words: a difference of decibels, else the ratio of what is missing.
std::string beside_floor(const Figure& figure, double ab, double floor) {
  if (!std::isfinite(ab) || !std::isfinite(floor)) return "–";
  if (figure.logarithmic) return (ab > floor ? "+" : "") + number(ab - floor, figure.decimals) + " " + figure.unit;
  const double missing_ab = figure.better == Better::kHigher ? 1 - ab : ab;
  const double missing_floor = figure.better == Better::kHigher ? 1 - floor : floor;
  if (!(missing_floor > 0)) return "–";
  const double ratio = missing_ab / missing_floor;
  return "× " + number(ratio, ratio < 10 ? 2 : 0);
}

std::string model_name(const ComparedModel& model) {
  return escape_html(model.name) + ", " + escape_html(model.arithmetic);
}

std::string percent_cell(const AccuracyRow& row, Run run) { return number(row.percent(run), 1); }

class Page {
 public:
  Page(const Comparison& comparison, const HtmlOptions& options) : comparison_(comparison), options_(options) {}

  Result<std::string> write() {
    head();
    table_of_figures();
    if (options_.accuracy) accuracy();
    curves();
    OCTAVO_RETURN_IF_ERROR(pictures());
    protocol();
    out_ += "</main></body></html>\n";
    return std::move(out_);
  }

 private:
  template <typename... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(out_), format, std::forward<Args>(args)...);
  }

  void head() {
    const generation::GenerationRequest& request = comparison_.request;
    const std::string title = model_name(comparison_.a) + " and " + model_name(comparison_.b);
    add("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
        "<meta name=\"color-scheme\" content=\"light dark\"><title>{}</title><style>{}</style></head>\n<body><main>\n",
        title, kStyle);
    add("<h1><span class=\"of-a\">{}</span> <span class=\"soft\">and</span> <span class=\"of-b\">{}</span></h1>\n",
        model_name(comparison_.a), model_name(comparison_.b));
    add("<p class=\"soft\">{} prompts, {} {} each: {} pictures of {} × {} in {} steps at guidance {:g}, {}, {}</p>\n",
        comparison_.prompts.entries.size(), comparison_.seeds, comparison_.seeds == 1 ? "seed" : "seeds",
        comparison_.pictures.size(), request.width, request.height, request.steps, request.guidance_scale,
        escape_html(request.sampler), escape_html(comparison_.processor));
    const Figure& sqnr = figures().front();
    const Spread ab = summary(comparison_, sqnr, &ComparedPicture::ab);
    const Spread floor = summary(comparison_, sqnr, &ComparedPicture::floor);
    if (ab.identical == ab.count) {
      add("<p class=\"lead\">B's velocities are A's, bit for bit.</p>\n");
      return;
    }
    if (comparison_.source(Run::kB) != Run::kB) {
      add("<p class=\"lead\">A and B are the noise floor's own two ends: rounding A's activations to bf16 alone makes "
          "a "
          "difference of <b>{}</b> (SQNR of the velocity, mean over steps and pictures; worst {}).</p>\n",
          with_unit(ab.mean, sqnr), with_unit(ab.worst, sqnr));
      return;
    }
    add("<p class=\"lead\">At the same latents B's velocity is <b>{}</b> from A's (SQNR, mean over steps and pictures; "
        "worst {}). Rounding A's activations to bf16 alone costs as much as <b>{}</b>: that is the noise floor.</p>\n",
        with_unit(ab.mean, sqnr), with_unit(ab.worst, sqnr), with_unit(floor.mean, sqnr));
  }

  void table_of_figures() {
    add("<h2>In figures</h2>\n<div class=\"wide\"><table><thead><tr><th></th><th class=\"of-b\">B against A</th>"
        "<th>worst</th><th class=\"edge of-floor\">noise floor: bf16 against f32</th><th>worst</th>"
        "<th class=\"edge\">B beside the floor</th></tr></thead><tbody>\n");
    for (const Figure& figure : figures()) {
      const Spread ab = summary(comparison_, figure, &ComparedPicture::ab);
      const Spread floor = summary(comparison_, figure, &ComparedPicture::floor);
      add("<tr><th scope=\"row\">{}</th><td class=\"main\">{}</td><td>{}</td><td class=\"edge\">{}</td><td>{}</td>"
          "<td class=\"edge\">{}</td></tr>\n",
          figure.title, with_unit(ab.mean, figure), with_unit(ab.worst, figure), with_unit(floor.mean, figure),
          with_unit(floor.worst, figure), beside_floor(figure, ab.mean, floor.mean));
    }
    add("</tbody></table></div>\n<p class=\"soft\" style=\"margin-top:10px\">Of decibels, cosine and SSIM more is "
        "better, of relative L2 and the perceptual distance less. ∞ means no difference at all; such values are in no "
        "mean. The last column: decibels above or below the floor; else how many times as much is missing.</p>\n");
  }

  void accuracy() {
    const TaskAccuracy& accuracy = *options_.accuracy;
    add("<h2>What the pictures show</h2>\n<p>What {} prompts assert, as a detector that was trained apart reads the "
        "pictures: percent of facts that hold. Of pictures with something extra, an object nobody asked for, fewer are "
        "better.</p>\n<div class=\"wide\"><table><thead><tr><th></th><th>facts</th>"
        "<th class=\"of-a\">A</th><th class=\"of-b\">B</th><th>B − A</th>"
        "<th class=\"edge of-floor\">A in f32</th><th class=\"of-floor\">A in bf16</th></tr></thead><tbody>\n",
        accuracy.pictures);
    for (const AccuracyRow& row : accuracy.rows) {
      if (row.asked == 0) continue;
      const double gain = row.percent(Run::kB) - row.percent(Run::kA);
      add("<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td class=\"main\">{}</td><td>{}{}</td>"
          "<td class=\"edge\">{}</td><td>{}</td></tr>\n",
          escape_html(row.title), row.asked, percent_cell(row, Run::kA), percent_cell(row, Run::kB),
          gain > 0 ? "+" : "", number(gain, 1), percent_cell(row, Run::kF32), percent_cell(row, Run::kBf16));
    }
    add("</tbody></table></div>\n");
  }

  void curves() {
    const auto ab = call_summaries(comparison_, &ComparedPicture::ab);
    const auto floor = call_summaries(comparison_, &ComparedPicture::floor);
    LineChart chart{.title = "Signal to quantisation noise of the velocity by step",
                    .x_label = "step, from noise to picture",
                    .y_label = "SQNR, dB",
                    .series = {{"noise floor, mean", "floor", {}},
                               {"noise floor, worst picture", "floor-worst", {}},
                               {"B against A, mean", "b", {}},
                               {"B against A, worst picture", "b-worst", {}}},
                    .x_names = {}};
    for (std::size_t i = 0; i < ab.size(); ++i) {
      chart.series[0].values.push_back(floor[i].sqnr_db.mean);
      chart.series[1].values.push_back(floor[i].sqnr_db.worst);
      chart.series[2].values.push_back(ab[i].sqnr_db.mean);
      chart.series[3].values.push_back(ab[i].sqnr_db.worst);
      chart.x_names.push_back(std::to_string(ab[i].step + 1));
    }
    add("<h2>Velocity, step by step</h2>\n<p>Both models look at A's latents and predict; what differs is theirs "
        "alone, not carried over from earlier steps. The higher, the closer.</p>\n{}\n",
        svg(chart));

    LineChart sorted{.title = "PSNR of the pictures, sorted",
                     .x_label = "pictures, sorted",
                     .y_label = "PSNR, dB",
                     .series = {{"noise floor", "floor", {}}, {"B against A", "b", {}}},
                     .x_names = {}};
    for (const ComparedPicture& picture : comparison_.pictures) {
      sorted.series[0].values.push_back(picture.floor.psnr_db);
      sorted.series[1].values.push_back(picture.ab.psnr_db);
    }
    for (LineSeries& series : sorted.series) std::sort(series.values.begin(), series.values.end());
    if (comparison_.pictures.size() < 3) return;
    add("<h2>Pictures, at the end of each model's own way</h2>\n<p>A small difference early on can become another "
        "picture, as good as the first: read these beside the floor, which knows no other fault than rounding.</p>\n"
        "{}\n",
        svg(sorted));
  }

  Result<std::string> embedded(const image::Image& picture) const {
    const bool lossless = picture.width * picture.height <= kMostLosslessPixels;
    image::EncodeOptions encoding;
    encoding.lossless = lossless;
    if (!lossless) encoding.quality = kShownQuality;
    OCTAVO_ASSIGN_OR_RETURN(const auto bytes, image::encode(picture, "WebP", encoding));
    return "data:image/webp;base64," + image::base64_encode(bytes);
  }

  Status figure(const image::Image& picture, const std::string& alt, const std::string& caption) {
    OCTAVO_ASSIGN_OR_RETURN(const std::string data, embedded(picture));
    add("<figure><img loading=\"lazy\" width=\"{}\" height=\"{}\" alt=\"{}\" src=\"{}\"><figcaption>{}</figcaption>"
        "</figure>\n",
        picture.width, picture.height, escape_html(alt), data, caption);
    return {};
  }

  /// A power of two by which nearly every difference stays below white.
  static int amplification(const image::Image& a, const image::Image& b) {
    DifferenceHistogram histogram;
    histogram.add(a, b);
    const int largest = std::max(1, histogram.quantile(kShareWithinRange));
    int factor = 1;
    while (factor < 64 && 2 * factor * largest <= 255) factor *= 2;
    return factor;
  }

  Status pictures() {
    std::vector<std::size_t> order(comparison_.pictures.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t x, std::size_t y) {
      return comparison_.pictures[x].ab.perceptual > comparison_.pictures[y].ab.perceptual;
    });
    order.resize(std::min(order.size(), options_.most_pictures));
    if (order.empty()) return {};
    add("<h2>Side by side, the furthest apart first</h2>\n<p>{} of {} pictures, ordered by the perceptual distance. "
        "Each map shows |A − B| of every channel, multiplied as written under it.{}</p>\n",
        order.size(), comparison_.pictures.size(),
        comparison_.request.width * comparison_.request.height > kMostLosslessPixels
            ? fmt::format(" Pictures are shown as WebP of quality {}; figures and maps are of the exact ones.",
                          kShownQuality)
            : "");
    for (const std::size_t index : order) {
      const ComparedPicture& one = comparison_.pictures[index];
      const PromptEntry& entry = comparison_.prompts.entries[one.prompt];
      const std::string name = entry.prompt.empty() ? "(empty prompt)" : entry.prompt;
      add("<section class=\"pair\"><h3>{}</h3>\n", escape_html(name));
      if (!entry.negative_prompt.empty()) {
        add("<p class=\"facts\">without: {}</p>\n", escape_html(entry.negative_prompt));
      }
      add("<p class=\"facts\">seed {} · perceptual {} <span class=\"of-floor\">(floor {})</span> · PSNR {} dB "
          "<span class=\"of-floor\">({})</span> · SSIM {} <span class=\"of-floor\">({})</span> · latents {} dB "
          "<span class=\"of-floor\">({})</span></p>\n<div class=\"three\">\n",
          one.seed, number(one.ab.perceptual, 4), number(one.floor.perceptual, 4), number(one.ab.psnr_db, 1),
          number(one.floor.psnr_db, 1), number(one.ab.ssim, 4), number(one.floor.ssim, 4),
          number(one.ab.latents.sqnr_db, 1), number(one.floor.latents.sqnr_db, 1));
      OCTAVO_ASSIGN_OR_RETURN(const image::Image a, comparison_.picture(Run::kA, index));
      OCTAVO_ASSIGN_OR_RETURN(const image::Image b, comparison_.picture(Run::kB, index));
      const int factor = amplification(a, b);
      OCTAVO_RETURN_IF_ERROR(figure(a, "A: " + name, "<span class=\"of-a\">A</span> " + model_name(comparison_.a)));
      OCTAVO_RETURN_IF_ERROR(figure(b, "B: " + name, "<span class=\"of-b\">B</span> " + model_name(comparison_.b)));
      OCTAVO_RETURN_IF_ERROR(
          figure(difference_map(a, b, factor), "difference of A and B: " + name, fmt::format("|A − B| × {}", factor)));
      add("</div></section>\n");
    }
    return {};
  }

  void model_rows(const char* name, const ComparedModel& model) {
    add("<tr><th scope=\"row\">{}</th><td class=\"text\"><code>{}</code></td><td>{}</td><td "
        "class=\"words\">{}</td><td>{:.1f} MB</td>"
        "<td><code>{}</code></td></tr>\n",
        name, escape_html(model.path), escape_html(model.precision), escape_html(model.arithmetic),
        static_cast<double>(model.weight_bytes) / 1e6, escape_html(model.hash));
  }

  void protocol() {
    add("<h2>What was compared</h2>\n<div class=\"wide\"><table><thead><tr><th></th><th style=\"text-align:left\">model"
        "</th><th>asked for</th><th>arithmetic</th><th>files</th><th>hash</th></tr></thead><tbody>\n");
    model_rows("A", comparison_.a);
    model_rows("B", comparison_.b);
    model_rows("floor, A in f32", comparison_.floor_f32);
    model_rows("floor, A in bf16", comparison_.floor_bf16);
    add("</tbody></table></div>\n");
    for (const auto& [name, model] : {std::pair{"A", &comparison_.a}, std::pair{"B", &comparison_.b}}) {
      if (!model->quantization.is_object()) continue;
      boost::json::object record = model->quantization.get_object();
      for (const char* bulky : {"layers", "policy"}) record.erase(bulky);
      add("<p class=\"soft\" style=\"margin-top:12px\">How {} was quantised: <code>{}</code></p>\n", name,
          escape_html(boost::json::serialize(record)));
    }
    const generation::GenerationRequest& request = comparison_.request;
    const auto [first, last] =
        std::minmax_element(comparison_.pictures.begin(), comparison_.pictures.end(),
                            [](const ComparedPicture& a, const ComparedPicture& b) { return a.seed < b.seed; });
    add("<h2>How it was measured</h2>\n<dl>\n"
        "<dt>noise</dt><dd>the same for both models; seeds {} to {}</dd>\n"
        "<dt>schedule</dt><dd>{}, {}, shift {:g}; both models walk A's noise levels</dd>\n"
        "<dt>prompts</dt><dd>{} <code>sha256 {}</code></dd>\n"
        "<dt>velocity</dt><dd>guided, at the latents of A's own way; B, and both ends of the floor, answer for the "
        "same latents. SQNR = 10 log10(Σ a² / Σ (a − b)²)</dd>\n"
        "<dt>latents, pictures</dt><dd>at the end of each model's own way</dd>\n"
        "<dt>SSIM</dt><dd>Wang et al. 2004, Gaussian window of 11 pixels, of the brightness</dd>\n"
        "<dt>perceptual distance</dt><dd>Octavo's own, 0 to 1: differences of lightness and of two opponent colours at "
        "five scales, measured against the contrast around them, with a term for structure; docs/quality.md defines "
        "it</dd>\n"
        "<dt>noise floor</dt><dd>model A in bf16 against itself in f32, all else equal; bf16 {}</dd>\n"
        "<dt>processor</dt><dd>{}</dd>\n<dt>program</dt><dd>{}</dd>\n</dl>\n",
        first->seed, last->seed, escape_html(request.sampler), escape_html(request.schedule), request.shift,
        escape_html(comparison_.prompts_path), comparison_.prompts.hash,
        comparison_.native_bf16 ? "by the processor's unit" : "by rounding, as this processor has no unit for it",
        escape_html(comparison_.processor), escape_html(options_.tool));
  }

  const Comparison& comparison_;
  const HtmlOptions& options_;
  std::string out_;
};

}  // namespace

Result<std::string> report_html(const Comparison& comparison, const HtmlOptions& options) {
  return Page(comparison, options).write();
}

}  // namespace octavo::quantize
