// An own distance between pictures, closer to what is seen than PSNR; docs/quality.md explains its terms.
//
// Both pictures become lightness and two opponent colours (Oklab: Björn Ottosson, "A perceptual color space for image
// processing", 2020). A pyramid splits each plane into details of growing size: z = g - m(g), where m is the mean in a
// Gaussian window (plane.h), and the next level's g is m(g) at every second pixel. At each level, for each plane,
//
//   contrast    e = mean over pixels of m(|za - zb|) / (c + m(|za|) + m(|zb|))
//   structure   s = mean over pixels of (1 - (m(za zb) + c^2) / (sqrt(m(za^2) m(zb^2)) + c^2)) / 2
//
// each in [0, 1): a change is measured against the contrast that surrounds it (Laparra, Ballé, Berardino and
// Simoncelli, 2016, found this to follow what people see), c is the contrast below which little is seen: 0.02 of
// lightness, 0.01 of colour. A level's distance is 0.4 e + 0.3 s of lightness + 0.15 e of each colour. What is left
// under the last level is compared as it is: mean of d / (0.1 + d), d Oklab's distance. The result is the mean over
// levels and rest.
#pragma once

#include "image/image.h"

namespace octavo::quantize {

/// 0 when equal, below 1 always, symmetric; deterministic on one build. Requires RGB pictures of one size. At most
/// five levels; one more while the shorter side has at least 16 pixels.
double perceptual_distance(const image::Image& a, const image::Image& b);

}  // namespace octavo::quantize
