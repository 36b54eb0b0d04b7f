// The step functions named in the sampler table, each in its own file.
#pragma once

#include "sampling/sampler.h"

namespace octavo::sampling {

/// x += (next_sigma - sigma) * velocity: euler.cc.
void euler_step(SamplerVerbs& verbs, const SamplerStep& step);

}  // namespace octavo::sampling
