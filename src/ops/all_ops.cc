#include "ops/all_ops.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "ops/activation/activation.h"
#include "ops/attention/attention.h"
#include "ops/cast/cast.h"
#include "ops/conv2d/conv2d.h"
#include "ops/embedding/embedding.h"
#include "ops/group_norm/group_norm.h"
#include "ops/group_norm/group_norm_bands.h"
#include "ops/matmul/matmul.h"
#include "ops/norm/norm.h"
#include "ops/patch/patch.h"
#include "ops/quantize/quantize.h"
#include "ops/sample/sample.h"
#include "ops/scaled_matmul/scaled_matmul.h"

namespace octavo::ops {

std::vector<const KernelTableBase*> all_tables() {
  return {
      &activation_table(),
      &add_positions_table(),
      &attention_table(),
      &blend_known_table(),
      &cast_table(),
      &check_finite_table(),
      &conv2d_table(),
      &embedding_table(),
      &gate_residual_norm_table(),
      &group_norm_table(),
      &group_norm_apply_table(),
      &group_norm_join_table(),
      &group_norm_measure_table(),
      &guidance_table(),
      &latents_to_decoder_table(),
      &layer_norm_table(),
      &lincomb_table(),
      &matmul_table(),
      &patchify_table(),
      &qkv_split_norm_table(),
      &quantize_table(),
      &relative_bias_table(),
      &rms_norm_table(),
      &scaled_matmul_table(),
      &timestep_embedding_table(),
      &to_pixels_table(),
      &unpatchify_table(),
  };
}

Status check_overrides(const device::KernelOverrides& overrides) {
  const std::vector<const KernelTableBase*> tables = all_tables();
  for (const auto& [op, row] : overrides) {
    const auto table =
        std::find_if(tables.begin(), tables.end(), [&name = op](const auto* t) { return t->op() == name; });
    if (table == tables.end()) {
      std::string known;
      for (const KernelTableBase* t : tables) known += (known.empty() ? "" : ", ") + std::string(t->op());
      return invalid_argument("kernel", fmt::format("there is no op '{}'; there are {}", op, known));
    }
    const std::vector<std::string_view> rows = (*table)->row_names();
    if (std::find(rows.begin(), rows.end(), row) == rows.end()) {
      return invalid_argument("kernel",
                              fmt::format("op '{}' has no kernel '{}'; it has {}", op, row, fmt::join(rows, ", ")));
    }
  }
  return {};
}

}  // namespace octavo::ops
