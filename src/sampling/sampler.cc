#include "sampling/sampler.h"

#include <array>

#include "sampling/row_lookup.h"
#include "sampling/samplers.h"

namespace octavo::sampling {
namespace {

using Names = std::string_view;

// What AUTOMATIC1111 ("k_..."), ComfyUI and diffusers call them. DDIM without noise of its own is Euler's step on a
// flow: x' = (1 - sigma') * picture + sigma' * noise, with both as the velocity implies them.
constexpr Names kEuler[] = {"k_euler", "flowmatcheulerdiscretescheduler", "euler flowmatch", "ddim"};
constexpr Names kEulerAncestral[] = {"k_euler_a", "k_euler_ancestral", "euler_a", "euler ancestral"};
constexpr Names kHeun[] = {"k_heun", "flowmatchheundiscretescheduler"};
constexpr Names kDpmpp2m[] = {"k_dpmpp_2m", "dpm++ 2m"};
constexpr Names kDpmpp2mSde[] = {"k_dpmpp_2m_sde", "dpmpp_2m_sde_gpu"};
constexpr Names kDpmpp2mSdeHeun[] = {"k_dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu"};
constexpr Names kDpmpp3mSde[] = {"k_dpmpp_3m_sde", "dpmpp_3m_sde_gpu"};
constexpr Names kUniPc[] = {"unipc", "uni_pc_bh2", "unipcmultistepscheduler"};
constexpr Names kLcm[] = {"k_lcm", "flowmatchlcmscheduler"};

constexpr std::array<SamplerRow, 9> kRows = {{
    {.name = "euler",
     .label = "Euler",
     .aliases = kEuler,
     .default_schedule = "normal",
     .summary = "first order, the model's own training path",
     .workspace_count = 1,
     .step = euler_step},
    {.name = "euler_ancestral",
     .label = "Euler a",
     .aliases = kEulerAncestral,
     .default_schedule = "normal",
     .summary = "Euler with fresh noise at every step",
     .workspace_count = 1,
     .uses_eta = true,
     .step = euler_ancestral_step},
    {.name = "heun",
     .label = "Heun",
     .aliases = kHeun,
     .default_schedule = "normal",
     .summary = "second order, two forwards a step",
     .workspace_count = 3,
     .step = heun_step},
    {.name = "dpmpp_2m",
     .label = "DPM++ 2M",
     .aliases = kDpmpp2m,
     .default_schedule = "normal",
     .summary = "second order from the last two steps",
     .history_count = 1,
     .workspace_count = 1,
     .step = dpmpp_2m_step},
    {.name = "dpmpp_2m_sde",
     .label = "DPM++ 2M SDE",
     .aliases = kDpmpp2mSde,
     .default_schedule = "normal",
     .summary = "DPM++ 2M with fresh noise, midpoint",
     .history_count = 1,
     .workspace_count = 2,
     .uses_eta = true,
     .needs_finite_snr = true,
     .step = dpmpp_2m_sde_step},
    {.name = "dpmpp_2m_sde_heun",
     .label = "DPM++ 2M SDE Heun",
     .aliases = kDpmpp2mSdeHeun,
     .default_schedule = "normal",
     .summary = "DPM++ 2M with fresh noise, Heun's term",
     .history_count = 1,
     .workspace_count = 2,
     .uses_eta = true,
     .needs_finite_snr = true,
     .step = dpmpp_2m_sde_heun_step},
    {.name = "dpmpp_3m_sde",
     .label = "DPM++ 3M SDE",
     .aliases = kDpmpp3mSde,
     .default_schedule = "normal",
     .summary = "third order from the last three steps, with fresh noise",
     .history_count = 2,
     .workspace_count = 2,
     .uses_eta = true,
     .needs_finite_snr = true,
     .step = dpmpp_3m_sde_step},
    {.name = "uni_pc",
     .label = "UniPC",
     .aliases = kUniPc,
     .default_schedule = "normal",
     .summary = "predictor and corrector of order two",
     .history_count = 3,
     .workspace_count = 1,
     .needs_finite_snr = true,
     .step = uni_pc_step},
    // Four steps of the normal schedule spend the last one on 0.9 % of noise: distilled models want even steps.
    {.name = "lcm",
     .label = "LCM",
     .aliases = kLcm,
     .default_schedule = "sgm_uniform",
     .summary = "picture and new noise at every step, for distilled models",
     .workspace_count = 2,
     .step = lcm_step},
}};

}  // namespace

std::span<const SamplerRow> sampler_rows() { return kRows; }

Result<const SamplerRow*> find_sampler(std::string_view name) { return find_row(sampler_rows(), name, "sampler"); }

std::vector<float> model_sigmas(const SamplerRow& row, std::span<const float> sigmas) {
  OCTAVO_CHECK(sigmas.size() >= 2, "{} sigmas make no step", sigmas.size());
  if (row.model_sigmas != nullptr) return row.model_sigmas(sigmas);
  return {sigmas.begin(), sigmas.end() - 1};
}

}  // namespace octavo::sampling
