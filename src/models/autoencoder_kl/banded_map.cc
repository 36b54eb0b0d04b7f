#include "models/autoencoder_kl/banded_map.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "ops/cast/cast.h"
#include "ops/group_norm/group_norm_plan.h"

namespace octavo::models {
namespace {

Rows grown(Rows rows, std::int64_t by, std::int64_t height) {
  return {std::max<std::int64_t>(0, rows.begin - by), std::min(height, rows.end + by)};
}

/// Whole pairs, as doubling a row gives them.
Rows paired(Rows rows) { return {rows.begin / 2 * 2, (rows.end + 1) / 2 * 2}; }

/// The rows behind paired rows of the doubled map, with the neighbours that a 3x3 kernel reads.
Rows behind(Rows doubled, std::int64_t source_height) {
  return grown({doubled.begin / 2, doubled.end / 2}, 1, source_height);
}

layers::Halo halo(Rows have, Rows want) { return {have.begin<want.begin, have.end> want.end}; }

/// Calls visit(rows) for every band of a map, top to bottom or bottom to top. Bands begin at blocks of the group norm.
template <typename Visit>
void for_each_band(std::int64_t height, std::int64_t width, std::int64_t rows_wanted, bool from_top,
                   const Visit& visit) {
  const std::int64_t unit = std::max<std::int64_t>(2, ops::kBlockPixels / std::gcd(ops::kBlockPixels, width));
  constexpr std::int64_t kLeastRows = 16;  // neighbouring windows share four rows, of a map half as high six
  const std::int64_t rows = std::max({unit, (kLeastRows + unit - 1) / unit * unit, rows_wanted / unit * unit});
  const std::int64_t bands = (height + rows - 1) / rows;
  for (std::int64_t i = 0; i < bands; ++i) {
    const std::int64_t begin = (from_top ? i : bands - 1 - i) * rows;
    visit(Rows{begin, std::min(begin + rows, height)});
  }
}

/// The rows `want` of a map that is read as doubled by `upsample`, or as it is without.
Band input_band(ops::ExecutionContext& context, const Band& source, std::int64_t source_height, Rows want,
                const layers::Convolution* upsample) {
  if (upsample == nullptr) return {source.slice(want), want};
  const Rows pairs = paired(want), from = behind(pairs, source_height);
  const TensorView doubled = context.arena().take(
      source.view.dtype(), Shape{1, pairs.count(), 2 * source.view.dim(2), upsample->out_channels()});
  upsample->forward(context, source.slice(from), doubled, {}, true, halo(from, {pairs.begin / 2, pairs.end / 2}));
  return {doubled, pairs};
}

/// Norm, SiLU and convolution: rows `want` from a band that holds them and their neighbours.
TensorView hidden_band(ops::ExecutionContext& context, const AutoencoderResidual& block, const Band& input,
                       const TensorView& coefficients, Rows want, std::int64_t height) {
  const TensorView hidden =
      context.arena().take(input.view.dtype(), Shape{1, want.count(), input.view.dim(2), block.out_channels});
  device::Arena::Scope scope(context.arena());
  const Rows from = grown(want, 1, height);
  const TensorView x = input.slice(from);
  const TensorView normed = context.arena().take(x.dtype(), x.shape());
  block.norm1.apply(context, x, coefficients, normed, true);
  block.conv1.forward(context, normed, hidden, {}, false, halo(from, want));
  return hidden;
}

}  // namespace

BandedMap::BandedMap(ops::ExecutionContext& context, DType dtype, std::int64_t capacity, std::int64_t band_elements)
    : context_(context),
      dtype_(dtype),
      band_elements_(band_elements),
      buffer_(context.arena().take(dtype, Shape{capacity})) {}

void BandedMap::start(const TensorView& map) {
  at_front_ = true;
  map_ = reshaped(buffer_, map.shape());
  ops::cast(context_, {.x = map, .out = map_});
}

void BandedMap::start(const TensorView& picture, const layers::Convolution& convolution) {
  const std::int64_t height = picture.dim(1), width = picture.dim(2);
  at_front_ = true;
  map_ = reshaped(buffer_, Shape{1, height, width, convolution.out_channels()});
  for_each_band(height, width, rows_of(width, convolution.out_channels()), true, [&](Rows band) {
    device::Arena::Scope scope(context_.arena());
    const Rows from = grown(band, 1, height);
    const TensorView pixels = context_.arena().take(dtype_, Shape{1, from.count(), width, picture.dim(3)});
    ops::cast(context_, {.x = picture.slice(1, from.begin, from.count()), .out = pixels});
    convolution.forward(context_, pixels, map_.slice(1, band.begin, band.count()), {}, false, halo(from, band));
  });
}

void BandedMap::measure(const layers::GroupNorm& norm, std::int64_t height, std::int64_t width, std::int64_t band_rows,
                        const TensorView& coefficients, const MeasureBand& band_of) const {
  device::Arena::Scope scope(context_.arena());
  const std::int64_t pixels = height * width, channels = coefficients.dim(1);
  const TensorView statistics = context_.arena().take(DType::kF32, Shape{ops::group_norm_blocks(pixels), 2, channels});
  for_each_band(height, width, band_rows, true, [&](Rows band) {
    device::Arena::Scope band_scope(context_.arena());
    norm.measure(context_, band_of(band), band.begin * width, statistics);
  });
  norm.join(context_, statistics, pixels, coefficients);
}

void BandedMap::residual(const AutoencoderResidual& block, const layers::Convolution* upsample) {
  const std::int64_t zoom = upsample == nullptr ? 1 : 2, source_height = map_.dim(1);
  const std::int64_t height = source_height * zoom, width = map_.dim(2) * zoom;
  const std::int64_t band_rows = rows_of(width, std::max(block.in_channels, block.out_channels));
  device::Arena::Scope scope(context_.arena());
  const TensorView first = context_.arena().take(DType::kF32, Shape{2, block.in_channels});
  const TensorView second = context_.arena().take(DType::kF32, Shape{2, block.out_channels});
  measure(block.norm1, height, width, band_rows, first,
          [&](Rows band) { return input_band(context_, stored(), source_height, band, upsample).slice(band); });
  measure(block.norm2, height, width, band_rows, second, [&](Rows band) {
    const Band input = input_band(context_, stored(), source_height, grown(band, 1, height), upsample);
    return hidden_band(context_, block, input, first, band, height);
  });
  const auto needed = [&](Rows band) {
    const Rows wanted = grown(band, 2, height);
    return upsample == nullptr ? wanted : behind(paired(wanted), source_height);
  };
  replace(Shape{1, height, width, block.out_channels}, band_rows, needed,
          [&](const Band& old, Rows band, const TensorView& target) {
            const Band input = input_band(context_, old, source_height, grown(band, 2, height), upsample);
            const Rows hidden_rows = grown(band, 1, height);
            const TensorView hidden = hidden_band(context_, block, input, first, hidden_rows, height);
            block.norm2.apply(context_, hidden, second, hidden, true);
            TensorView residual = input.slice(band);
            if (block.shortcut) {
              block.shortcut->forward(context_, residual, target);
              residual = target;
            }
            block.conv2.forward(context_, hidden, target, residual, false, halo(hidden_rows, band));
          });
}

void BandedMap::upsample(const layers::Convolution& convolution) {
  const std::int64_t height = map_.dim(1);
  const auto needed = [&](Rows band) { return behind(band, height); };
  const std::int64_t width = 2 * map_.dim(2);
  replace(Shape{1, 2 * height, width, convolution.out_channels()}, rows_of(width, convolution.out_channels()), needed,
          [&](const Band& old, Rows band, const TensorView& target) {
            convolution.forward(context_, old.view, target, {}, true, halo(old.rows, {band.begin / 2, band.end / 2}));
          });
}

void BandedMap::downsample(const layers::Convolution& convolution) {
  const std::int64_t height = map_.dim(1);
  const auto needed = [&](Rows band) { return Rows{2 * band.begin, std::min(height, 2 * band.end + 1)}; };
  replace(Shape{1, height / 2, map_.dim(2) / 2, convolution.out_channels()},
          rows_of(map_.dim(2), convolution.out_channels()) / 2, needed,
          [&](const Band& old, Rows band, const TensorView& target) {
            convolution.downsample(context_, old.view, target, {false, old.rows.end > 2 * band.end});
          });
}

void BandedMap::finish(const layers::GroupNorm& norm, const layers::Convolution& convolution,
                       const TensorView& out) const {
  const std::int64_t height = map_.dim(1), width = map_.dim(2), channels = map_.dim(3);
  device::Arena::Scope scope(context_.arena());
  const TensorView coefficients = context_.arena().take(DType::kF32, Shape{2, channels});
  const std::int64_t band_rows = rows_of(width, channels);
  measure(norm, height, width, band_rows, coefficients, [&](Rows band) { return stored().slice(band); });
  for_each_band(height, width, band_rows, true, [&](Rows band) {
    device::Arena::Scope band_scope(context_.arena());
    const Rows from = grown(band, 1, height);
    const TensorView x = stored().slice(from);
    const TensorView normed = context_.arena().take(dtype_, x.shape());
    norm.apply(context_, x, coefficients, normed, true);
    convolution.forward(context_, normed, out.slice(1, band.begin, band.count()), {}, false, halo(from, band));
  });
}

void BandedMap::replace(const Shape& shape, std::int64_t band_rows, const std::function<Rows(Rows band)>& needed,
                        const std::function<void(const Band& old, Rows band, const TensorView& target)>& write) {
  const TensorView old = map_;
  const std::int64_t capacity = buffer_.element_count(), count = shape.element_count();
  OCTAVO_CHECK(count <= capacity, "a map of {} in {} elements", shape.to_string(), capacity);
  const std::int64_t old_at = at_front_ ? 0 : capacity - old.element_count();
  // A map that grows moves to the other end and is written from that end on: its old rows are read before the new ones
  // reach them. One that does not grow stays behind its own reading.
  if (count > old.element_count()) at_front_ = !at_front_;
  const std::int64_t at = at_front_ ? 0 : capacity - count;
  map_ = TensorView(buffer_.slice(0, at, count).data(), dtype_, shape);
  const std::int64_t old_row = old.dim(2) * old.dim(3), row = shape[2] * shape[3];

  auto& arena = context_.arena();
  device::Arena::Scope scope(arena);
  std::int64_t window_rows = 0;
  for_each_band(shape[1], shape[2], band_rows, at_front_,
                [&](Rows band) { window_rows = std::max(window_rows, needed(band).count()); });
  const TensorView window = arena.take(dtype_, Shape{1, window_rows, old.dim(2), old.dim(3)});
  Rows held{0, 0};
  if (!at_front_) held = {old.dim(1), old.dim(1)};
  for_each_band(shape[1], shape[2], band_rows, at_front_, [&](Rows band) {
    device::Arena::Scope band_scope(arena);
    const Rows want = needed(band);
    // What the last window has of this one, then what is new.
    const Rows kept{std::max(want.begin, held.begin), std::min(want.end, held.end)};
    Rows fresh = want;
    if (kept.count() > 0) {
      const TensorView from = window.slice(1, kept.begin - held.begin, kept.count());
      const TensorView to = window.slice(1, kept.begin - want.begin, kept.count());
      OCTAVO_CHECK(std::abs(held.begin - want.begin) >= kept.count() || held.begin == want.begin,
                   "a window of {} rows moves over itself", kept.count());
      if (held.begin != want.begin) ops::cast(context_, {.x = from, .out = to});
      fresh = at_front_ ? Rows{kept.end, want.end} : Rows{want.begin, kept.begin};
    }
    if (fresh.count() > 0) {
      ops::cast(context_, {.x = old.slice(1, fresh.begin, fresh.count()),
                           .out = window.slice(1, fresh.begin - want.begin, fresh.count())});
    }
    held = want;
    // Rows of the old map that are still to be read lie beyond what is written now.
    const std::int64_t written_begin = at + band.begin * row, written_end = at + band.end * row;
    OCTAVO_CHECK(at_front_ ? written_end <= old_at + want.end * old_row || want.end == old.dim(1)
                           : written_begin >= old_at + want.begin * old_row || want.begin == 0,
                 "rows {} to {} are written over rows that are still needed", band.begin, band.end);
    write({window.slice(1, 0, want.count()), want}, band, map_.slice(1, band.begin, band.count()));
  });
}

}  // namespace octavo::models
