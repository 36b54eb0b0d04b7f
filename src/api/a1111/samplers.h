// Sampler and scheduler names as A1111's clients send them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "generation/generation.h"

namespace octavo::api::a1111 {

struct SamplerChoice {
  std::string sampler;   // canonical, one of the model's
  std::string schedule;  // canonical, or "" = the sampler's default
};

/// `sampler` is any name or alias of ours or of A1111's, any case, "" = the default; a trailing scheduler ("DPM++ 2M
/// Karras") counts when `scheduler` is empty. A sampler that A1111 has and we have not becomes the default one, which
/// the answer's `info` then names: SD3.5 is a flow model, for which most of them mean nothing. Nothing when no
/// implementation knows the name. An unknown scheduler is "Automatic", as in A1111.
std::optional<SamplerChoice> choose_sampler(std::string_view sampler, std::string_view scheduler,
                                            const generation::Capabilities& capabilities);

/// Lower-case aliases of one of our samplers, as GET samplers lists them.
std::vector<std::string> sampler_aliases(std::string_view canonical);

}  // namespace octavo::api::a1111
