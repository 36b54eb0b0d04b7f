// Masks of img2img: one channel, 255 where the picture is drawn anew, 0 where it is kept. The arithmetic is that of
// AUTOMATIC1111 1.10, which leans on Pillow and OpenCV, so that the same mask gives the same seam.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "image/image.h"
#include "image/resize.h"

namespace octavo::image {

/// Red, green and blue weighed as ITU-R BT.601 has it (0.299, 0.587, 0.114), with Pillow's rounding. Takes 1, 3 or 4
/// channels; alpha does not count.
Image luminance(const Image& image);

/// The fourth channel alone. Requires 4 channels.
Image alpha_of(const Image& image);

/// Some pixel is not fully opaque.
bool has_transparency(const Image& image);

/// The mask that a user's picture means: alpha when it has transparency, white (drawn anew) above 128 when `round`;
/// else its luminance.
Image mask_from_picture(const Image& picture, bool round = true);

/// 255 less each value.
Image invert(Image image);

/// RGB of a picture laid over one colour. Pictures without alpha come back as they are.
Image flatten(const Image& image, std::array<std::uint8_t, 3> background);

/// OpenCV's Gaussian, as A1111's `mask_blur` uses it and not Pillow's (which is made of boxes): sigma in pixels, cut
/// off after int(2.5 sigma + 0.5), mirrored at the edges without repeating them, columns of the rounded rows. Zero
/// leaves an axis as it is. Requires one channel and sigmas from 0 to 256.
Image blur_mask(const Image& mask, double sigma_x, double sigma_y);

/// The smallest box that holds every pixel over 0, grown by `padding` and cut at the edges; nothing for a black mask.
std::optional<Box> masked_box(const Image& mask, int padding);

/// `box` grown on one axis towards the shape of `target_width` x `target_height`, moved back inside the picture
/// where it runs over an edge, and cut where it does not fit: A1111's "only masked" region.
Box expand_to_ratio(Box box, int target_width, int target_height, int image_width, int image_height);

/// Lays `drawn` over `base` at (left, top), as much of each pixel as `mask` says. Requires as many channels as the base
/// has, a mask of the size of `drawn`, and that all of it lies inside the base.
void paste(const Image& drawn, const Image& mask, int left, int top, Image& base);

}  // namespace octavo::image
