// How far a picture is from the one it should be: PSNR, SSIM, and the difference itself as a picture.
#pragma once

#include "image/image.h"

namespace octavo::quantize {

/// 10 log10(255^2 / mean squared difference), over all channels of all pixels; infinite when equal. Requires RGB
/// pictures of one size.
double psnr_db(const image::Image& reference, const image::Image& test);

/// Structural similarity of Wang, Bovik, Sheikh and Simoncelli (IEEE Trans. Image Processing 13 (4), 2004): of the
/// brightness 0.299 R + 0.587 G + 0.114 B, in the Gaussian window of plane.h, K1 = 0.01, K2 = 0.03, population
/// (co)variances, averaged over the pixels whose window lies within the picture. 1 when equal. Requires RGB pictures
/// of one size, at least 11 pixels a side.
double ssim(const image::Image& reference, const image::Image& test);

/// |reference - test| * `factor` in every channel, cut at 255. Requires RGB pictures of one size.
image::Image difference_map(const image::Image& reference, const image::Image& test, int factor);

/// The difference that all but the given share of the channel values of all pixels stay within; 0 to 255.
class DifferenceHistogram {
 public:
  void add(const image::Image& reference, const image::Image& test);
  int quantile(double share) const;

 private:
  long long counts_[256] = {};
};

}  // namespace octavo::quantize
