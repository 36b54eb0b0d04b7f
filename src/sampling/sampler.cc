#include "sampling/sampler.h"

#include <array>

#include "sampling/row_lookup.h"
#include "sampling/samplers.h"

namespace octavo::sampling {
namespace {

constexpr std::array<std::string_view, 2> kEulerAliases = {"k_euler", "flowmatcheulerdiscretescheduler"};

constexpr std::array<SamplerRow, 1> kRows = {{
    {.name = "euler",
     .label = "Euler",
     .aliases = kEulerAliases,
     .default_schedule = "normal",
     .history_count = 0,
     .workspace_count = 1,
     .step = euler_step,
     .model_sigmas = nullptr},
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
