#include "quantize/buy_back.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace octavo::quantize {
namespace {

/// The second feed-forward product's input is smoothed by a multiplier while running, which plain layers do not have;
/// all other smoothing is in the weights whatever the layer's bits.
constexpr std::string_view kSecondFeedForward = ".net.2";

/// Sixteen bits, and nothing that only an 8-bit product can carry.
void keep(LayerRecipe& layer) {
  layer.quantised = false;
  layer.outliers.clear();
  if (layer.layer.ends_with(kSecondFeedForward)) layer.smooth.clear();
}

}  // namespace

std::vector<Purchase> purchases_of(const Recipe& recipe, const std::vector<Site>& sites,
                                   const weights::SourcePart& transformer) {
  std::vector<Purchase> purchases;
  const auto bytes_of = [&](const std::string& layer) {
    for (const weights::SourceTensor& tensor : transformer.tensors) {
      if (tensor.name == layer + ".weight") return static_cast<std::size_t>(tensor.shape.element_count());
    }
    return std::size_t{0};
  };
  for (const Site& site : sites) {
    Purchase joined;
    for (const std::string& reader : site.readers) {
      const LayerRecipe* layer = recipe.find(reader);
      if (layer == nullptr || !layer->quantised) continue;
      Purchase one{.layers = {reader}, .output_error = layer->output_error, .bytes = bytes_of(reader)};
      if (site.producer == Site::Producer::kValues) {
        purchases.push_back(std::move(one));  // one a stream: two products
        continue;
      }
      joined.layers.push_back(reader);
      joined.output_error += one.output_error;
      joined.bytes += one.bytes;
    }
    if (joined.layers.empty()) continue;
    joined.output_error /= static_cast<double>(joined.layers.size());
    purchases.push_back(std::move(joined));
  }
  return purchases;
}

Recipe alone(const Recipe& recipe, const std::vector<std::string>& layers) {
  Recipe result = recipe;
  for (LayerRecipe& layer : result.layers) {
    if (!layer.quantised || std::find(layers.begin(), layers.end(), layer.layer) != layers.end()) continue;
    keep(layer);
  }
  return result;
}

Result<std::size_t> parse_budget(const std::string& text, const std::vector<Purchase>& purchases) {
  const auto wrong = [&] {
    return invalid_argument("--budget", "'" + text + "' is neither bytes (1500000, 20M, 1.5G) nor a share (5%)");
  };
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || !(number >= 0) || !std::isfinite(number)) return wrong();
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  double factor = 1;
  if (unit == "K") {
    factor = 1e3;
  } else if (unit == "M") {
    factor = 1e6;
  } else if (unit == "G") {
    factor = 1e9;
  } else if (unit == "%") {
    std::size_t total = 0;
    for (const Purchase& purchase : purchases) total += purchase.bytes;
    factor = static_cast<double>(total) / 100;
  } else if (!unit.empty()) {
    return wrong();
  }
  const double bytes = number * factor;
  if (bytes > 1e15) return wrong();
  return static_cast<std::size_t>(bytes);
}

void buy_back(Recipe& recipe, std::vector<Purchase>& purchases, std::size_t budget) {
  std::stable_sort(purchases.begin(), purchases.end(), [](const Purchase& a, const Purchase& b) {
    return a.error() * static_cast<double>(b.bytes) > b.error() * static_cast<double>(a.bytes);
  });
  std::size_t left = budget;
  for (std::size_t i = 0; i < purchases.size(); ++i) {
    Purchase& purchase = purchases[i];
    purchase.rank = i + 1;
    purchase.bought = purchase.bytes <= left && purchase.error() > 0;
    if (purchase.bought) left -= purchase.bytes;
    std::string words = fmt::format("rank {} of {} by error a byte", purchase.rank, purchases.size());
    if (purchase.velocity_error > 0) {
      words += fmt::format("; alone in 8 bits: velocity SQNR {:.1f} dB", -10 * std::log10(purchase.velocity_error));
    }
    for (LayerRecipe& layer : recipe.layers) {
      if (std::find(purchase.layers.begin(), purchase.layers.end(), layer.layer) == purchase.layers.end()) continue;
      layer.velocity_error = purchase.velocity_error;
      layer.reason += "; " + words;
      if (!purchase.bought) continue;
      layer.reason = fmt::format("bought back for {} bytes: ", purchase.bytes) + layer.reason;
      keep(layer);
    }
  }
  recipe.policy = "auto";
}

}  // namespace octavo::quantize
