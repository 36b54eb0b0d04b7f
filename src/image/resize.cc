#include "image/resize.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <vector>

#include "base/check.h"

namespace octavo::image {
namespace {

constexpr int kCoefficientBits = 22;  // 32 less 8 of the pixel less 2 for sums over 1: Pillow's

struct Filter {
  double support;
  double (*weight)(double x);
};

double sinc(double x) { return x == 0 ? 1 : std::sin(x * std::numbers::pi) / (x * std::numbers::pi); }

double box_weight(double x) { return x > -0.5 && x <= 0.5 ? 1 : 0; }

double bilinear_weight(double x) { return std::max(0.0, 1 - std::abs(x)); }

double bicubic_weight(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

double lanczos_weight(double x) { return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0; }

Filter filter_of(ResizeFilter filter) {
  switch (filter) {
    case ResizeFilter::kBox:
      return {0.5, box_weight};
    case ResizeFilter::kBilinear:
      return {1, bilinear_weight};
    case ResizeFilter::kBicubic:
      return {2, bicubic_weight};
    case ResizeFilter::kLanczos:
      break;
  }
  return {3, lanczos_weight};
}

/// Which inputs make one output, and by how much each counts.
struct Taps {
  int first = 0;
  std::vector<std::int32_t> weights;
};

/// Which part of a scaled line is wanted.
struct Window {
  int first = 0;
  int count = 0;
};

std::vector<Taps> taps_of(int in_size, int out_size, Window window, const Filter& filter) {
  const double scale = static_cast<double>(in_size) / out_size;
  const double widening = std::max(scale, 1.0);
  const double support = filter.support * widening;
  std::vector<Taps> all(static_cast<std::size_t>(window.count));
  std::vector<double> weights;
  for (int i = 0; i < window.count; ++i) {
    const double centre = (window.first + i + 0.5) * scale;
    const int first = std::max(static_cast<int>(std::floor(centre - support + 0.5)), 0);
    const int end = std::min(static_cast<int>(std::floor(centre + support + 0.5)), in_size);
    weights.clear();
    double sum = 0;
    for (int j = first; j < end; ++j) {
      weights.push_back(filter.weight((j - centre + 0.5) * (1 / widening)));
      sum += weights.back();
    }
    Taps& taps = all[static_cast<std::size_t>(i)];
    taps.first = first;
    for (const double weight : weights) {
      const double fixed = (sum != 0 ? weight / sum : weight) * (1 << kCoefficientBits);
      taps.weights.push_back(static_cast<std::int32_t>(fixed + (fixed < 0 ? -0.5 : 0.5)));
    }
  }
  return all;
}

std::uint8_t rounded(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> kCoefficientBits, 0, 255));
}

Image resize_width(const Image& image, int width, Window window, const Filter& filter) {
  Image out{window.count, image.height, image.channels, {}};
  out.pixels.resize(out.byte_count());
  const auto all = taps_of(image.width, width, window, filter);
  const auto channels = static_cast<std::size_t>(image.channels);
  std::uint8_t* to = out.pixels.data();
  for (int y = 0; y < image.height; ++y) {
    const std::uint8_t* row = image.pixels.data() + static_cast<std::size_t>(y) * image.width * channels;
    for (const Taps& taps : all) {
      for (std::size_t c = 0; c < channels; ++c) {
        const std::uint8_t* from = row + static_cast<std::size_t>(taps.first) * channels + c;
        std::int32_t sum = 1 << (kCoefficientBits - 1);
        for (const std::int32_t weight : taps.weights) {
          sum += *from * weight;
          from += channels;
        }
        *to++ = rounded(sum);
      }
    }
  }
  return out;
}

Image resize_height(const Image& image, int height, Window window, const Filter& filter) {
  Image out{image.width, window.count, image.channels, {}};
  out.pixels.resize(out.byte_count());
  const auto all = taps_of(image.height, height, window, filter);
  const std::size_t stride = static_cast<std::size_t>(image.width) * image.channels;
  std::vector<std::int32_t> sums(stride);
  std::uint8_t* to = out.pixels.data();
  for (const Taps& taps : all) {
    std::fill(sums.begin(), sums.end(), 1 << (kCoefficientBits - 1));
    const std::uint8_t* from = image.pixels.data() + static_cast<std::size_t>(taps.first) * stride;
    for (const std::int32_t weight : taps.weights) {
      for (std::size_t i = 0; i < stride; ++i) sums[i] += from[i] * weight;
      from += stride;
    }
    for (const std::int32_t sum : sums) *to++ = rounded(sum);
  }
  return out;
}

void multiply_by_alpha(Image& image) {
  for (std::size_t i = 0; i < image.pixels.size(); i += 4) {
    for (std::size_t c = 0; c < 3; ++c) {
      const int product = image.pixels[i + c] * image.pixels[i + 3] + 128;
      image.pixels[i + c] = static_cast<std::uint8_t>((product + (product >> 8)) >> 8);
    }
  }
}

void divide_by_alpha(Image& image) {
  for (std::size_t i = 0; i < image.pixels.size(); i += 4) {
    const int alpha = image.pixels[i + 3];
    if (alpha == 0 || alpha == 255) continue;
    for (std::size_t c = 0; c < 3; ++c) {
      image.pixels[i + c] = static_cast<std::uint8_t>(std::min(255 * image.pixels[i + c] / alpha, 255));
    }
  }
}

/// The part `columns` x `rows` of the picture scaled to width x height; only that part takes memory.
Image resize_part(const Image& image, int width, int height, Window columns, Window rows, const Filter& filter) {
  Image scaled;
  const Image* source = &image;
  if (image.channels == 4) {
    scaled = image;
    multiply_by_alpha(scaled);
    source = &scaled;
  }
  if (width != source->width || columns.count != width) {
    scaled = resize_width(*source, width, columns, filter);
    source = &scaled;
  }
  if (height != source->height || rows.count != height) {
    scaled = resize_height(*source, height, rows, filter);
    source = &scaled;
  }
  if (source == &image) return image;
  if (image.channels == 4) divide_by_alpha(scaled);
  return scaled;
}

/// `image` at (left, top) of `target`, within which it must lie.
void put(const Image& image, int left, int top, Image& target) {
  const std::size_t stride = static_cast<std::size_t>(image.width) * image.channels;
  for (int y = 0; y < image.height; ++y) {
    const std::size_t at = static_cast<std::size_t>(top + y) * target.width + static_cast<std::size_t>(left);
    std::copy_n(image.pixels.data() + static_cast<std::size_t>(y) * stride, stride,
                target.pixels.data() + at * target.channels);
  }
}

/// Everything outside `inside` takes the colour of the nearest pixel within it.
void repeat_edges(Image& image, const Box& inside) {
  const auto channels = static_cast<std::size_t>(image.channels);
  for (int y = 0; y < image.height; ++y) {
    const int from_y = std::clamp(y, inside.y1, inside.y2 - 1);
    for (int x = 0; x < image.width; ++x) {
      const int from_x = std::clamp(x, inside.x1, inside.x2 - 1);
      if (from_x == x && from_y == y) continue;
      std::copy_n(image.pixels.data() + (static_cast<std::size_t>(from_y) * image.width + from_x) * channels, channels,
                  image.pixels.data() + (static_cast<std::size_t>(y) * image.width + x) * channels);
    }
  }
}

void check_picture(const Image& image) {
  OCTAVO_CHECK(image.width > 0 && image.height > 0 && image.pixels.size() == image.byte_count(),
               "a {}x{}x{} picture with {} bytes", image.width, image.height, image.channels, image.pixels.size());
}

}  // namespace

Image resize(const Image& image, int width, int height, ResizeFilter filter) {
  check_picture(image);
  OCTAVO_CHECK(width > 0 && height > 0, "to {}x{}", width, height);
  if (width == image.width && height == image.height) return image;
  return resize_part(image, width, height, {0, width}, {0, height}, filter_of(filter));
}

Image fit(const Image& image, int width, int height, FitMode mode) {
  if (mode == FitMode::kStretch) return resize(image, width, height, ResizeFilter::kLanczos);
  check_picture(image);
  OCTAVO_CHECK(width > 0 && height > 0, "to {}x{}", width, height);
  // Side by side as products, which are exact: is the target wider than the picture?
  const std::int64_t target = std::int64_t{width} * image.height, stored = std::int64_t{height} * image.width;
  if (target == stored) return resize(image, width, height, ResizeFilter::kLanczos);
  const bool by_width = mode == FitMode::kCrop ? target > stored : target < stored;
  const auto other_side = [](int side, int by, int of) {
    return static_cast<int>(std::max<std::int64_t>(std::int64_t{side} * by / of, 1));
  };
  const int scaled_width = by_width ? width : other_side(image.width, height, image.height);
  const int scaled_height = by_width ? other_side(image.height, width, image.width) : height;
  const int left = width / 2 - scaled_width / 2, top = height / 2 - scaled_height / 2;
  const Filter lanczos = filter_of(ResizeFilter::kLanczos);
  if (mode == FitMode::kCrop) {
    return resize_part(image, scaled_width, scaled_height, {-left, width}, {-top, height}, lanczos);
  }
  const Image scaled = resize_part(image, scaled_width, scaled_height, {0, scaled_width}, {0, scaled_height}, lanczos);
  Image out{width, height, image.channels, {}};
  out.pixels.resize(out.byte_count());
  put(scaled, left, top, out);
  repeat_edges(out, {left, top, left + scaled_width, top + scaled_height});
  return out;
}

Image crop(const Image& image, const Box& box) {
  check_picture(image);
  OCTAVO_CHECK(box.x1 >= 0 && box.y1 >= 0 && box.x1 < box.x2 && box.y1 < box.y2 && box.x2 <= image.width &&
                   box.y2 <= image.height,
               "crop {},{} to {},{} of {}x{}", box.x1, box.y1, box.x2, box.y2, image.width, image.height);
  Image out{box.width(), box.height(), image.channels, {}};
  out.pixels.reserve(out.byte_count());
  for (int y = box.y1; y < box.y2; ++y) {
    const auto channels = static_cast<std::size_t>(image.channels);
    const std::uint8_t* from = image.pixels.data() + (static_cast<std::size_t>(y) * image.width + box.x1) * channels;
    out.pixels.insert(out.pixels.end(), from, from + static_cast<std::size_t>(box.width()) * channels);
  }
  return out;
}

}  // namespace octavo::image
