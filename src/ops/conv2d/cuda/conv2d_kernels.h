// What surrounds cuDNN's convolution: pictures and weights brought into the shapes that it takes.
#pragma once

#include "device/execution_context.h"
#include "tensor/tensor.h"

namespace octavo::ops {

/// to [B, zoom H, zoom W, C'] from [B, H, W, C], C' >= C: doubled by nearest neighbour with `zoom` 2, added channels
/// zero. Both contiguous, of one dtype (f32 | bf16).
void arrange_for_conv(device::ExecutionContext& context, const TensorView& from, const TensorView& to, int zoom);

/// out = the first channels of sums [.., C'] f32 + bias + residual; bias and residual may be undefined. residual may be
/// out.
void finish_conv(device::ExecutionContext& context, const TensorView& sums, const TensorView& bias,
                 const TensorView& residual, const TensorView& out);

/// out [B, 2 H, 2 W, C] from phases [B, H + 1, W + 1, 4 C] of its type: pixel (2y + py, 2x + px) is phase 2 py + px at
/// (y + py, x + px); plus residual if there is one, which may be out. C a multiple of 8.
void join_phases(device::ExecutionContext& context, const TensorView& phases, const TensorView& residual,
                 const TensorView& out);

/// to [4, C], four times bias [C], of one dtype.
void repeat_bias(device::ExecutionContext& context, const TensorView& bias, const TensorView& to);

/// to [Cout', kernel, kernel, Cin'] f32 | bf16 from [Cout, Cin, kernel, kernel] f32 | f16 | bf16, both on the device;
/// added channels zero.
void pack_conv(void* stream, const TensorView& from, const TensorView& to);

/// The four 2x2 kernels that do on a small picture what the 3x3 kernel does on it doubled: to [4, Cout, 2, 2, Cin], the
/// phase of output rows and columns 2y + py, 2x + px at 2 py + px. Taps that meet the same pixel are added in f32.
void pack_conv_phases(void* stream, const TensorView& from, const TensorView& to);

}  // namespace octavo::ops
