// Classifier-free guidance (Ho & Salimans, arXiv:2207.12598): how the rows of a forward become one velocity.
#pragma once

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

}  // namespace octavo::sampling
