// What a picture was drawn with, as A1111's "parameters" text says it.
#pragma once

#include <string_view>

#include "generation/generation.h"
#include "image/infotext.h"

namespace octavo::generation {

/// The text of the picture with `seeds` of a resolved request. `version` may be empty.
image::Infotext describe(const GenerationRequest& request, const ImageSeeds& seeds, const Capabilities& capabilities,
                         std::string_view version);

}  // namespace octavo::generation
