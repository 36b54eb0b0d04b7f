// Classifier-free guidance (Ho & Salimans, arXiv:2207.12598): how the rows of a forward become one velocity.
#pragma once

#include <vector>

#include "device/execution_context.h"
#include "tensor/tensor.h"

namespace octavo::sampling {

/// A value; part of a job.
struct Guidance {
  float scale = 1.0f;

  /// As diffusers: at 1 and below only the conditional branch runs.
  bool enabled() const { return scale > 1.0f; }
  /// Rows of the model's batch for each picture. With two, the order is [all uncond rows, all cond rows].
  int branches() const { return enabled() ? 2 : 1; }
};

/// `prediction` [branches * B, C, height, width] and `out` [B, C, height, width], f32, contiguous; `out` may be the
/// first or the second half of `prediction`. Enabled: uncond + scale * (cond - uncond), each operation rounded, as
/// diffusers does in f32; else a copy.
void apply_guidance(device::ExecutionContext& context, const Guidance& guidance, const TensorView& prediction,
                    const TensorView& out);

/// Skip-layer guidance: pushes the velocity away from what the model predicts with some blocks left out. As diffusers'
/// StableDiffusion3Pipeline: on top of classifier-free guidance, for the conditional branch, in a window of steps.
struct SkipLayerGuidance {
  std::vector<int> layers;
  double scale = 0;  // 0 = off
  double start = 0;  // fractions of the steps
  double stop = 0;

  bool enabled() const { return scale > 0 && !layers.empty(); }
  /// `step` counts from 0; both ends of the window are outside.
  bool applies(int step, int steps) const { return enabled() && step > steps * start && step < steps * stop; }
};

/// out += scale * (cond - skipped), roundings as written; `skipped` is overwritten. All [B, C, height, width] f32,
/// contiguous: the guided velocity, and the conditional one with all blocks and with some left out.
void apply_skip_layer_guidance(device::ExecutionContext& context, const SkipLayerGuidance& guidance,
                               const TensorView& cond, const TensorView& skipped, const TensorView& out);

}  // namespace octavo::sampling
