// The step functions named in the sampler table, each explained in its own file.
#pragma once

#include "sampling/sampler.h"

namespace octavo::sampling {

void euler_step(SamplerVerbs& verbs, const SamplerStep& step);
void euler_ancestral_step(SamplerVerbs& verbs, const SamplerStep& step);
void heun_step(SamplerVerbs& verbs, const SamplerStep& step);
void dpmpp_2m_step(SamplerVerbs& verbs, const SamplerStep& step);
void dpmpp_2m_sde_step(SamplerVerbs& verbs, const SamplerStep& step);
void dpmpp_2m_sde_heun_step(SamplerVerbs& verbs, const SamplerStep& step);
void dpmpp_3m_sde_step(SamplerVerbs& verbs, const SamplerStep& step);
void uni_pc_step(SamplerVerbs& verbs, const SamplerStep& step);
void lcm_step(SamplerVerbs& verbs, const SamplerStep& step);

}  // namespace octavo::sampling
