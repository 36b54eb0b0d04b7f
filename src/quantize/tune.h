// Tuning: what statistics and weights say about a planned recipe. Static scales, smoothing and split channels, each
// taken where the measured error of the product falls by it and left where it does not, so that none costs anything on
// a model that has no outliers.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "quantize/layer_error.h"
#include "quantize/recipe.h"
#include "quantize/sites.h"
#include "quantize/statistics.h"

namespace octavo::quantize {

struct TuneOptions {
  double smooth_alpha = 0.0;  // 0 = no smoothing; SmoothQuant's 0.5 divides the difficulty evenly
  int outliers = 0;           // most channels a layer; 0 = no splitting
};

/// A channel is split off only when its largest input is more than this many times the median channel's: below that,
/// eight bits of a floating format hold both, and a thin product beside each product is not free.
inline constexpr float kOutlierMultiple = 32.0f;
/// Smoothing and splitting are kept when they take at least this share of a product's squared error away: the first
/// where a channel stands out by kOutlierMultiple, the second elsewhere, where less may be chance: with 0.05, smoothing
/// of two layers of octavo-tiny that the kept tokens promised 0.3 dB cost it 0.1.
inline constexpr double kWorthwhile = 0.05;
inline constexpr double kWorthwhileElsewhere = 0.15;

/// How far a site's range moves between steps and between channels.
struct Spread {
  float smallest_step = 0.0f, largest_step = 0.0f;  // amax of the steps
  float median_channel = 0.0f, largest_channel = 0.0f;
};
Spread spread_of(std::span<const InputStatistics* const> inputs, std::int64_t branches);

/// What tune() could not do, told before anything is run. kInvalidArgument naming a quantised layer with static
/// activations whose input no site has, and so nobody listens to.
Status check_tunable(const Recipe& recipe, const std::vector<Site>& sites);

/// Fills static_amax, smooth, outliers, output_error and the reasons of a planned recipe's quantised layers, and the
/// recipe's calibration. Layers of one site stay equal. kInvalidArgument when the statistics are of other layers.
Status tune(Recipe& recipe, const weights::TensorSource& source, const std::vector<Site>& sites,
            const Statistics& statistics, const TuneOptions& options);

}  // namespace octavo::quantize
