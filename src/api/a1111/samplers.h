// Sampler and scheduler names as A1111's clients send them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "generation/generation.h"

namespace octavo::api::a1111 {

struct SamplerChoice {
  std::string sampler;   // canonical, one of the model's
  std::string schedule;  // canonical, or "" = the sampler's default
};

/// `sampler` is any name, label or alias of the model's, any case, "" = the default; a trailing scheduler ("DPM++ 2M
/// Karras") counts when `scheduler` is empty. A sampler that A1111 has and the model has not becomes the nearest one,
/// which the answer's `info` then names. Nothing when no implementation knows the name. An unknown scheduler is
/// "Automatic", as in A1111.
std::optional<SamplerChoice> choose_sampler(std::string_view sampler, std::string_view scheduler,
                                            const generation::Capabilities& capabilities);

}  // namespace octavo::api::a1111
