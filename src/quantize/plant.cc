#include "quantize/plant.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "quantize/sites.h"

namespace octavo::quantize {
namespace {

constexpr int kMostChannels = 1024;
constexpr double kLeastFactor = 4, kMostFactor = 1 << 20;
constexpr std::uint64_t kMultiples = 3;  // a quarter, a half, all of the factor

}  // namespace

Result<Recipe> plant_recipe(const weights::SourcePart& transformer, const PlantOptions& options) {
  if (options.channels < 1 || options.channels > kMostChannels) {
    return invalid_argument("--channels", fmt::format("must be from 1 to {}", kMostChannels));
  }
  if (!(options.factor >= kLeastFactor && options.factor <= kMostFactor)) {
    return invalid_argument("--factor", fmt::format("must be from {:g} to {:g}", kLeastFactor, kMostFactor));
  }
  const int largest = static_cast<int>(std::floor(std::log2(options.factor)));
  std::mt19937_64 random(options.seed);  // its sequence is the same everywhere; distributions' are not
  Recipe recipe{.policy = "planted outliers"};
  for (const Site& site : sites_of(transformer)) {
    if (site.producer == Site::Producer::kActivation) continue;
    std::vector<std::int64_t> order(static_cast<std::size_t>(site.channels));
    std::iota(order.begin(), order.end(), 0);
    std::vector<float> smooth(order.size(), 1.0f);
    const auto count = std::min(order.size(), static_cast<std::size_t>(options.channels));
    for (std::size_t i = 0; i < count; ++i) {
      std::swap(order[i], order[i + random() % (order.size() - i)]);
      const int exponent = largest - static_cast<int>(random() % kMultiples);
      smooth[static_cast<std::size_t>(order[i])] = std::ldexp(1.0f, -exponent);
    }
    for (const std::string& reader : site.readers) {
      recipe.layers.push_back({.layer = reader, .reason = "planted", .smooth = smooth});
    }
  }
  return recipe;
}

}  // namespace octavo::quantize
