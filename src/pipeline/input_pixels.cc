#include "pipeline/input_pixels.h"

#include <algorithm>

#include "image/mask.h"

namespace octavo::pipeline {
namespace {

constexpr std::array<std::uint8_t, 3> kWhite = {255, 255, 255};

/// Three channels, transparency over white.
image::Image to_rgb(const image::Image& picture) {
  if (picture.channels != 1) return image::flatten(picture, kWhite);
  image::Image rgb{picture.width, picture.height, 3, {}};
  rgb.pixels.reserve(rgb.byte_count());
  for (const std::uint8_t value : picture.pixels) rgb.pixels.insert(rgb.pixels.end(), 3, value);
  return rgb;
}

/// 1 where a square of downscale^2 pixels is at least half white.
std::vector<float> latent_mask(const image::Image& mask, int downscale) {
  const int width = mask.width / downscale, height = mask.height / downscale;
  std::vector<float> latents(static_cast<std::size_t>(width) * height);
  const int half = 255 * downscale * downscale / 2;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      int sum = 0;
      for (int row = y * downscale; row < (y + 1) * downscale; ++row) {
        const auto first = mask.pixels.begin() + static_cast<std::ptrdiff_t>(row) * mask.width + x * downscale;
        for (auto value = first; value != first + downscale; ++value) sum += *value;
      }
      latents[static_cast<std::size_t>(y) * width + x] = sum > half ? 1.0f : 0.0f;
    }
  }
  return latents;
}

/// A1111 lays the drawn picture over the whole picture with twice the blurred mask: fully inside the mask's own border.
image::Image doubled(image::Image mask) {
  for (std::uint8_t& value : mask.pixels) value = static_cast<std::uint8_t>(std::min(255, 2 * value));
  return mask;
}

}  // namespace

Result<InputPixels> prepare_pixels(const generation::GenerationRequest& request, int downscale) {
  OCTAVO_CHECK(request.init_image != nullptr, "a request without init_image has no pixels to prepare");
  const int width = request.width, height = request.height;
  InputPixels pixels;
  image::Image source = to_rgb(*request.init_image);
  if (request.mask == nullptr) {
    pixels.picture = image::fit(source, width, height, request.resize_mode);
    return pixels;
  }
  const auto nothing = [] { return invalid_argument("mask", "is black everywhere: there is nothing to repaint"); };
  image::Image mask = image::mask_from_picture(*request.mask);
  if (request.mask_invert) mask = image::invert(std::move(mask));
  if (mask.width != source.width || mask.height != source.height) {
    mask = image::fit(mask, source.width, source.height, image::FitMode::kStretch);
  }
  mask = image::blur_mask(mask, request.mask_blur, request.mask_blur);
  image::Image drawn_mask;
  if (request.only_masked) {
    const std::optional<image::Box> masked = image::masked_box(mask, request.mask_padding);
    if (!masked) return nothing();
    pixels.box = image::expand_to_ratio(*masked, width, height, source.width, source.height);
    pixels.alpha = image::crop(mask, pixels.box);
    pixels.picture = image::fit(image::crop(source, pixels.box), width, height, image::FitMode::kFill);
    drawn_mask = image::fit(pixels.alpha, width, height, image::FitMode::kFill);
    pixels.canvas = std::move(source);
  } else {
    pixels.box = {0, 0, width, height};
    pixels.picture = image::fit(source, width, height, request.resize_mode);
    drawn_mask = image::fit(mask, width, height, request.resize_mode);
    pixels.alpha = doubled(drawn_mask);
    pixels.canvas = pixels.picture;
  }
  pixels.mask = latent_mask(drawn_mask, downscale);
  if (std::find(pixels.mask.begin(), pixels.mask.end(), 1.0f) == pixels.mask.end()) return nothing();
  return pixels;
}

image::Image paste_back(const InputPixels& pixels, const image::Image& drawn) {
  image::Image picture = pixels.canvas;
  const image::Image fitted = image::fit(drawn, pixels.box.width(), pixels.box.height(), image::FitMode::kCrop);
  image::paste(fitted, pixels.alpha, pixels.box.x1, pixels.box.y1, picture);
  return picture;
}

}  // namespace octavo::pipeline
