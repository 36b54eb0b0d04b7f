// What a picture was drawn with, as A1111's "parameters" text says it.
#pragma once

#include <cstdint>
#include <string_view>

#include "generation/generation.h"
#include "image/infotext.h"

namespace octavo::generation {

/// The text of the picture with `seed` of a resolved request. `version` may be empty.
image::Infotext describe(const GenerationRequest& request, std::int64_t seed, const Capabilities& capabilities,
                         std::string_view version);

/// How lists and texts show a canonical sampler or schedule name: "euler" -> "Euler". Unknown names stay as they are.
std::string_view display_name(std::string_view canonical);

}  // namespace octavo::generation
