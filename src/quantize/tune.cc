#include "quantize/tune.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "quantize/folding.h"

namespace octavo::quantize {
namespace {

constexpr float kMostSmoothing = 4096.0f;  // and its inverse: 16-bit weights keep their range
/// The kept tokens are few: an input that they do not show is cut by no more than this.
constexpr float kMostClipping = 4.0f;
constexpr double kWorthClipping = 0.05;  // of the squared error
constexpr std::array<double, 2> kClippingFractions = {0.9999, 0.999};

float median(std::vector<float> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// All that one site's decisions are made from.
struct Measured {
  const Site* site = nullptr;
  std::vector<const InputStatistics*> inputs;
  InputSample input;                 // of all the site's inputs together
  std::vector<float> channel_amax;   // over the site's inputs
  std::vector<LayerRecipe*> layers;  // quantised ones alone
  std::vector<InputSample> samples;  // each layer's own: attention's output has another for each stream
  std::vector<WeightSample> weights;
};

/// The site's error: of its layers' products together, each by its share of the output.
double error_of(const Measured& at, const std::vector<LayerRecipe>& layers) {
  double error = 0;
  for (std::size_t i = 0; i < layers.size(); ++i) error += output_error(layers[i], at.samples[i], at.weights[i]);
  return error / static_cast<double>(layers.size());
}

/// The largest input left once it is divided and columns are taken out.
float remaining_amax(const Measured& at, const LayerRecipe& layer) {
  float amax = 0;
  for (std::size_t k = 0; k < at.channel_amax.size(); ++k) {
    if (std::find(layer.outliers.begin(), layer.outliers.end(), static_cast<int>(k)) != layer.outliers.end()) continue;
    amax = std::max(amax, at.channel_amax[k] / (layer.smooth.empty() ? 1.0f : layer.smooth[k]));
  }
  return amax;
}

/// The magnitude that a share of the kept tokens' values stay under, divided and without the split columns.
float kept_percentile(const Measured& at, const LayerRecipe& layer, double fraction) {
  std::vector<float> values;
  for (std::size_t i = 0; i < at.input.values.size(); ++i) {
    const auto k = i % at.channel_amax.size();
    if (std::find(layer.outliers.begin(), layer.outliers.end(), static_cast<int>(k)) != layer.outliers.end()) continue;
    values.push_back(std::fabs(at.input.values[i]) / (layer.smooth.empty() ? 1.0f : layer.smooth[k]));
  }
  if (values.empty()) return 0.0f;
  const auto place = values.begin() + static_cast<std::ptrdiff_t>(fraction * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), place, values.end());
  return *place;
}

/// Sets static_amax where it is asked for: the largest input, or a percentile, but no less than 1 / kMostClipping of
/// the largest, when clipping there errs less. Returns what was taken, in words.
std::string choose_static_amax(const Measured& at, std::vector<LayerRecipe>& layers) {
  if (std::none_of(layers.begin(), layers.end(),
                   [](const LayerRecipe& layer) { return layer.activations == Activations::kStatic; })) {
    return "";
  }
  const float largest = remaining_amax(at, layers.front());
  if (!(largest > 0)) {
    for (LayerRecipe& layer : layers) layer.static_amax = 1.0f;  // any scale holds zeros
    return "static scale of 1: every input was 0";
  }
  struct Candidate {
    float amax;
    std::string words;
  };
  std::vector<Candidate> candidates = {{largest, "largest input"}};
  const bool changed = !layers.front().smooth.empty() || !layers.front().outliers.empty();
  for (const double fraction : kClippingFractions) {
    float amax = 0;
    if (changed) {
      amax = kept_percentile(at, layers.front(), fraction);
    } else {
      for (const InputStatistics* input : at.inputs) amax = std::max(amax, input->percentile(fraction));
    }
    const float floor = largest / kMostClipping;
    const std::string words = amax < floor ? fmt::format("largest input / {:g}", kMostClipping)
                                           : fmt::format("{:g} % of inputs", 100 * fraction);
    amax = std::max(amax, floor);
    if (amax < candidates.back().amax) candidates.push_back({amax, words});
  }
  double least = 0;
  const Candidate* best = nullptr;
  for (const Candidate& candidate : candidates) {
    for (LayerRecipe& layer : layers) layer.static_amax = candidate.amax;
    const double error = error_of(at, layers);
    if (best == nullptr || error < (1 - kWorthClipping) * least) {
      least = error;
      best = &candidate;
    }
  }
  for (LayerRecipe& layer : layers) layer.static_amax = best->amax;
  return fmt::format("static scale from {} ({:.4g})", best->words, best->amax);
}

std::vector<float> smoothing(const Measured& at, double alpha) {
  const std::size_t K = at.channel_amax.size();
  std::vector<float> weight_amax(K, 0.0f), factors(K, 0.0f);
  for (const WeightSample& weight : at.weights) {
    for (std::size_t k = 0; k < K; ++k) weight_amax[k] = std::max(weight_amax[k], weight.channel_amax[k]);
  }
  std::vector<float> alive;
  for (std::size_t k = 0; k < K; ++k) {
    if (at.channel_amax[k] <= 0 || weight_amax[k] <= 0) continue;  // a dead channel: nothing to balance
    factors[k] = static_cast<float>(std::pow(static_cast<double>(at.channel_amax[k]), alpha) /
                                    std::pow(static_cast<double>(weight_amax[k]), 1 - alpha));
    if (factors[k] > 0 && std::isfinite(factors[k])) alive.push_back(factors[k]);
  }
  if (alive.empty()) return {};
  // Relative to the middle one: ordinary channels stay as they are.
  const float middle = median(alive);
  bool any = false;
  for (float& factor : factors) {
    const float relative = factor / middle;
    const bool usable = std::isfinite(relative) && relative > 0;
    factor = usable ? nearest_power_of_two(std::clamp(relative, 1 / kMostSmoothing, kMostSmoothing)) : 1.0f;
    any = any || factor != 1.0f;
  }
  return any ? factors : std::vector<float>();
}

std::vector<int> outliers_of(const Measured& at, const std::vector<float>& smooth, int most) {
  std::vector<float> amax = at.channel_amax;
  for (std::size_t k = 0; k < smooth.size(); ++k) amax[k] /= smooth[k];
  const float threshold = kOutlierMultiple * median(amax);
  std::vector<int> columns;
  for (std::size_t k = 0; k < amax.size(); ++k) {
    if (amax[k] > threshold) columns.push_back(static_cast<int>(k));
  }
  std::stable_sort(columns.begin(), columns.end(),
                   [&](int a, int b) { return amax[static_cast<std::size_t>(a)] > amax[static_cast<std::size_t>(b)]; });
  if (columns.size() > static_cast<std::size_t>(most)) columns.resize(static_cast<std::size_t>(most));
  std::sort(columns.begin(), columns.end());
  return columns;
}

void tune_site(const Measured& at, const TuneOptions& options, std::int64_t branches) {
  std::vector<LayerRecipe> best;
  for (const LayerRecipe* layer : at.layers) best.push_back(*layer);
  std::string words = choose_static_amax(at, best);
  double least = error_of(at, best);
  std::vector<std::string> notes;
  const Spread spread = spread_of(at.inputs, branches);
  const bool stands_out = spread.largest_channel > kOutlierMultiple * spread.median_channel;
  const double worthwhile = stands_out ? kWorthwhile : kWorthwhileElsewhere;
  const auto attempt = [&](auto&& change, const std::string& what) {
    std::vector<LayerRecipe> changed = best;
    for (LayerRecipe& layer : changed) change(layer);
    const std::string scale = choose_static_amax(at, changed);
    const double error = error_of(at, changed);
    const std::string effect = fmt::format("{} ({:+.1f} dB)", what, 10 * std::log10(least / error));
    if (!(error < (1 - worthwhile) * least)) {
      notes.push_back("no " + effect);
      return;
    }
    notes.push_back(effect);
    best = std::move(changed);
    words = scale;
    least = error;
  };
  const bool eight_bit_input = std::any_of(
      best.begin(), best.end(), [](const LayerRecipe& layer) { return layer.activations != Activations::kNone; });
  if (options.smooth_alpha > 0 && eight_bit_input) {
    const std::vector<float> factors = smoothing(at, options.smooth_alpha);
    if (!factors.empty()) {
      const float most = *std::max_element(factors.begin(), factors.end());
      attempt([&](LayerRecipe& layer) { layer.smooth = factors; }, fmt::format("smoothing by up to {:g}", most));
    }
  }
  if (options.outliers > 0 && eight_bit_input) {
    const std::vector<int> columns = outliers_of(at, best.front().smooth, options.outliers);
    if (!columns.empty()) {
      attempt([&](LayerRecipe& layer) { layer.outliers = columns; },
              fmt::format("splitting of {} channels", columns.size()));
    }
  }
  for (std::size_t i = 0; i < best.size(); ++i) {
    LayerRecipe& layer = best[i];
    layer.output_error = output_error(layer, at.samples[i], at.weights[i]);
    layer.reason += fmt::format("; output SQNR {:.1f} dB", -10 * std::log10(std::max(layer.output_error, 1e-30)));
    if (!words.empty()) layer.reason += "; " + words;
    for (const std::string& note : notes) layer.reason += "; " + note;
    layer.reason += fmt::format(
        "; largest input {:.3g} to {:.3g} over the steps, channel up to {:.0f} times the median", spread.smallest_step,
        spread.largest_step, spread.median_channel > 0 ? spread.largest_channel / spread.median_channel : 0.0f);
    *at.layers[i] = std::move(layer);
  }
}

}  // namespace

Spread spread_of(std::span<const InputStatistics* const> inputs, std::int64_t branches) {
  Spread spread;
  std::vector<float> steps, channels;
  for (const InputStatistics* input : inputs) {
    const std::size_t count = input->amax.size() / static_cast<std::size_t>(branches);
    steps.resize(count, 0.0f);
    channels.resize(input->channel_amax.size(), 0.0f);
    for (std::size_t i = 0; i < input->amax.size(); ++i) {
      float& step = steps[i / static_cast<std::size_t>(branches)];
      step = std::max(step, input->amax[i]);
    }
    for (std::size_t k = 0; k < channels.size(); ++k) channels[k] = std::max(channels[k], input->channel_amax[k]);
  }
  spread.smallest_step = *std::min_element(steps.begin(), steps.end());
  spread.largest_step = *std::max_element(steps.begin(), steps.end());
  spread.median_channel = median(channels);
  spread.largest_channel = *std::max_element(channels.begin(), channels.end());
  return spread;
}

Status check_tunable(const Recipe& recipe, const std::vector<Site>& sites) {
  for (const LayerRecipe& layer : recipe.layers) {
    if (!layer.quantised || layer.activations != Activations::kStatic || site_of(sites, layer.layer)) continue;
    return invalid_argument(
        layer.layer,
        "cannot have static activations: calibration listens to the blocks' products alone; give it "
        "token or none in the policy");
  }
  return {};
}

Status tune(Recipe& recipe, const weights::TensorSource& source, const std::vector<Site>& sites,
            const Statistics& statistics, const TuneOptions& options) {
  const auto& parts = source.parts();
  const auto part = static_cast<std::size_t>(
      std::find_if(parts.begin(), parts.end(),
                   [](const weights::SourcePart& one) { return one.part == weights::Part::kTransformer; }) -
      parts.begin());
  OCTAVO_CHECK(part < parts.size(), "the source has no transformer");
  recipe.calibration = statistics.record;
  recipe.smooth_alpha = options.smooth_alpha;
  recipe.outliers = options.outliers;
  for (const Site& site : sites) {
    Measured at{.site = &site, .inputs = statistics.of(site)};
    for (LayerRecipe& layer : recipe.layers) {
      if (layer.quantised && std::find(site.readers.begin(), site.readers.end(), layer.layer) != site.readers.end()) {
        at.layers.push_back(&layer);
      }
    }
    if (at.layers.empty()) continue;
    if (at.inputs.empty()) return invalid_argument(site.name(), "is not in the calibration's statistics");
    at.input = sample_of(at.inputs);
    at.channel_amax.assign(static_cast<std::size_t>(site.channels), 0.0f);
    for (const InputStatistics* input : at.inputs) {
      for (std::size_t k = 0; k < at.channel_amax.size(); ++k) {
        at.channel_amax[k] = std::max(at.channel_amax[k], input->channel_amax[k]);
      }
    }
    for (const LayerRecipe* layer : at.layers) {
      const auto own = std::find_if(at.inputs.begin(), at.inputs.end(),
                                    [&](const InputStatistics* input) { return input->layer == layer->layer; });
      const bool per_stream = site.producer == Site::Producer::kValues && own != at.inputs.end();
      at.samples.push_back(per_stream ? sample_of(std::span(&*own, 1)) : at.input);
      OCTAVO_ASSIGN_OR_RETURN(WeightSample weight, sample_weight(source, part, layer->layer));
      at.weights.push_back(std::move(weight));
    }
    tune_site(at, options, statistics.branches);
    // Who reads the same input in 16 bits sees it divided too.
    for (LayerRecipe& layer : recipe.layers) {
      const bool reads = std::find(site.readers.begin(), site.readers.end(), layer.layer) != site.readers.end();
      if (reads && !layer.quantised) layer.smooth = at.layers.front()->smooth;
    }
  }
  return {};
}

}  // namespace octavo::quantize
