// The check that a picture holds a picture: a broken decode often ends as one colour everywhere.
#pragma once

#include "image/image.h"

namespace octavo::image {

/// Every pixel equals the first (a picture without pixels counts as flat).
bool is_flat(const Image& image);

}  // namespace octavo::image
