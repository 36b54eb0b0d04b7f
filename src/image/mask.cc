#include "image/mask.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "base/check.h"

namespace octavo::image {
namespace {

std::uint8_t blend(int kept, int drawn, int share) {
  const int sum = kept * (255 - share) + drawn * share + 128;
  return static_cast<std::uint8_t>((sum + (sum >> 8)) >> 8);
}

std::size_t pixel_count(const Image& image) { return static_cast<std::size_t>(image.width) * image.height; }

constexpr int kWeightBits = 8;

/// OpenCV's weights for 8-bit pixels: rounded to 8 bits from the outside in, each taking over what its neighbour's
/// rounding lost; the middle one makes the sum 256.
std::vector<int> gaussian(double sigma) {
  const int radius = static_cast<int>(std::floor(2.5 * sigma + 0.5));
  std::vector<double> exact;
  double sum = 0;
  for (int i = -radius; i <= radius; ++i) {
    exact.push_back(std::exp(-i * i / (2 * sigma * sigma)));
    sum += exact.back();
  }
  std::vector<int> weights(exact.size());
  double lost = 0;
  int left = 1 << kWeightBits;
  for (std::size_t i = 0; i < exact.size() / 2; ++i) {
    const double wanted = exact[i] / sum * (1 << kWeightBits) + lost;
    const int weight = static_cast<int>(std::nearbyint(wanted));
    lost = wanted - weight;
    weights[i] = weights[exact.size() - 1 - i] = weight;
    left -= 2 * weight;
  }
  weights[exact.size() / 2] = left;
  return weights;
}

/// ... 2 1 | 0 1 2 ... n-1 | n-2 n-3 ...
int mirrored(int i, int size) {
  if (size == 1) return 0;
  const int period = 2 * (size - 1);
  i = ((i % period) + period) % period;
  return i < size ? i : period - i;
}

/// Along lines of `size` pixels that lie `step` apart; `lines` of them, their beginnings `line_step` apart.
void blur_lines(std::vector<std::uint8_t>& pixels, int size, std::size_t step, int lines, std::size_t line_step,
                double sigma) {
  const std::vector<int> weights = gaussian(sigma);
  const int radius = static_cast<int>(weights.size() / 2);
  std::vector<int> padded(static_cast<std::size_t>(size + 2 * radius));
  for (int line = 0; line < lines; ++line) {
    std::uint8_t* begin = pixels.data() + static_cast<std::size_t>(line) * line_step;
    for (int i = -radius; i < size + radius; ++i) {
      padded[static_cast<std::size_t>(i + radius)] = begin[static_cast<std::size_t>(mirrored(i, size)) * step];
    }
    for (int i = 0; i < size; ++i) {
      int sum = 1 << (kWeightBits - 1);
      for (std::size_t k = 0; k < weights.size(); ++k) sum += weights[k] * padded[static_cast<std::size_t>(i) + k];
      begin[static_cast<std::size_t>(i) * step] = static_cast<std::uint8_t>(std::clamp(sum >> kWeightBits, 0, 255));
    }
  }
}

/// One axis of expand_to_ratio: [low, high) grown by `more`, kept inside [0, size).
void grow(int& low, int& high, int more, int size) {
  low -= more / 2;
  high += more - more / 2;
  if (high >= size) {
    low -= high - size;
    high = size;
  }
  if (low < 0) {
    high -= low;
    low = 0;
  }
  high = std::min(high, size);
}

}  // namespace

Image luminance(const Image& image) {
  if (image.channels == 1) return image;
  OCTAVO_CHECK(image.channels == 3 || image.channels == 4, "{} channels", image.channels);
  Image grey{image.width, image.height, 1, {}};
  grey.pixels.reserve(pixel_count(image));
  for (std::size_t i = 0; i < image.pixels.size(); i += static_cast<std::size_t>(image.channels)) {
    const std::uint8_t* pixel = image.pixels.data() + i;
    // The weights in 16 bits; they add up to 65536.
    grey.pixels.push_back(
        static_cast<std::uint8_t>((pixel[0] * 19595 + pixel[1] * 38470 + pixel[2] * 7471 + 0x8000) >> 16));
  }
  return grey;
}

Image alpha_of(const Image& image) {
  OCTAVO_CHECK(image.channels == 4, "{} channels", image.channels);
  Image alpha{image.width, image.height, 1, {}};
  alpha.pixels.reserve(pixel_count(image));
  for (std::size_t i = 3; i < image.pixels.size(); i += 4) alpha.pixels.push_back(image.pixels[i]);
  return alpha;
}

bool has_transparency(const Image& image) {
  if (image.channels != 4) return false;
  for (std::size_t i = 3; i < image.pixels.size(); i += 4) {
    if (image.pixels[i] != 255) return true;
  }
  return false;
}

Image mask_from_picture(const Image& picture, bool round) {
  if (!has_transparency(picture)) return luminance(picture);
  Image mask = alpha_of(picture);
  if (round) {
    for (std::uint8_t& value : mask.pixels) value = value > 128 ? 255 : 0;
  }
  return mask;
}

Image invert(Image image) {
  for (std::uint8_t& value : image.pixels) value = static_cast<std::uint8_t>(255 - value);
  return image;
}

Image flatten(const Image& image, std::array<std::uint8_t, 3> background) {
  if (image.channels != 4) return image;
  Image flat{image.width, image.height, 3, {}};
  flat.pixels.reserve(flat.byte_count());
  for (std::size_t i = 0; i < image.pixels.size(); i += 4) {
    for (std::size_t c = 0; c < 3; ++c) {
      flat.pixels.push_back(blend(background[c], image.pixels[i + c], image.pixels[i + 3]));
    }
  }
  return flat;
}

Image blur_mask(const Image& mask, double sigma_x, double sigma_y) {
  OCTAVO_CHECK(mask.channels == 1 && mask.pixels.size() == mask.byte_count(), "a mask has one channel");
  OCTAVO_CHECK(sigma_x >= 0 && sigma_x <= 256 && sigma_y >= 0 && sigma_y <= 256, "sigma {}, {}", sigma_x, sigma_y);
  Image blurred = mask;
  const auto stride = static_cast<std::size_t>(mask.width);
  if (sigma_x > 0) blur_lines(blurred.pixels, mask.width, 1, mask.height, stride, sigma_x);
  if (sigma_y > 0) blur_lines(blurred.pixels, mask.height, stride, mask.width, 1, sigma_y);
  return blurred;
}

std::optional<Box> masked_box(const Image& mask, int padding) {
  OCTAVO_CHECK(mask.channels == 1 && padding >= 0, "{} channels, padding {}", mask.channels, padding);
  Box box{mask.width, mask.height, 0, 0};
  const std::uint8_t* at = mask.pixels.data();
  for (int y = 0; y < mask.height; ++y) {
    for (int x = 0; x < mask.width; ++x) {
      if (*at++ == 0) continue;
      box = {std::min(box.x1, x), std::min(box.y1, y), std::max(box.x2, x + 1), std::max(box.y2, y + 1)};
    }
  }
  if (box.x2 == 0) return std::nullopt;
  const auto before = [&](int value) { return value > padding ? value - padding : 0; };
  const auto after = [&](int value, int size) { return size - value > padding ? value + padding : size; };
  return Box{before(box.x1), before(box.y1), after(box.x2, mask.width), after(box.y2, mask.height)};
}

Box expand_to_ratio(Box box, int target_width, int target_height, int image_width, int image_height) {
  OCTAVO_CHECK(box.width() > 0 && box.height() > 0 && target_width > 0 && target_height > 0, "an empty box or target");
  const double ratio = static_cast<double>(target_width) / target_height;
  if (static_cast<double>(box.width()) / box.height() > ratio) {
    grow(box.y1, box.y2, static_cast<int>(box.width() / ratio - box.height()), image_height);
  } else {
    grow(box.x1, box.x2, static_cast<int>(box.height() * ratio - box.width()), image_width);
  }
  return box;
}

void paste(const Image& drawn, const Image& mask, int left, int top, Image& base) {
  OCTAVO_CHECK(
      drawn.channels == base.channels && mask.channels == 1 && mask.width == drawn.width && mask.height == drawn.height,
      "{} on {} channels, {}x{} through {}x{}", drawn.channels, base.channels, drawn.width, drawn.height, mask.width,
      mask.height);
  OCTAVO_CHECK(left >= 0 && top >= 0 && left + drawn.width <= base.width && top + drawn.height <= base.height,
               "{}x{} at {},{} of {}x{}", drawn.width, drawn.height, left, top, base.width, base.height);
  const auto channels = static_cast<std::size_t>(base.channels);
  for (int y = 0; y < drawn.height; ++y) {
    const std::size_t from = static_cast<std::size_t>(y) * drawn.width;
    std::uint8_t* to = base.pixels.data() + (static_cast<std::size_t>(top + y) * base.width + left) * channels;
    for (std::size_t x = 0; x < static_cast<std::size_t>(drawn.width); ++x) {
      for (std::size_t c = 0; c < channels; ++c, ++to) {
        *to = blend(*to, drawn.pixels[(from + x) * channels + c], mask.pixels[from + x]);
      }
    }
  }
}

}  // namespace octavo::image
