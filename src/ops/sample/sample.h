// What happens to latents between forwards, in f32, and the way from decoder output to pixels.
#pragma once

#include <array>

#include "ops/kernel_table.h"

namespace octavo::ops {

/// out = sum of coefficient_i * input_i over at most four inputs; out may be one of them. Evaluated left to right
/// with separate roundings (no fused multiply-add), so that Euler's x + dt * v equals diffusers' bit for bit.
struct LincombArgs {
  struct Term {
    float coefficient = 0.0f;
    TensorView input;  // f32, contiguous, same element count as out
  };
  std::array<Term, 4> terms;
  int term_count = 0;
  TensorView out;  // f32, contiguous
};
void lincomb(ExecutionContext& context, const LincombArgs& args);
KernelTable<LincombArgs>& lincomb_table();

/// Classifier-free guidance: out = uncond + guidance_scale * (cond - uncond), roundings as written.
struct GuidanceArgs {
  TensorView uncond;  // f32, contiguous
  TensorView cond;
  float guidance_scale = 1.0f;
  TensorView out;  // may be either input
};
void guidance(ExecutionContext& context, const GuidanceArgs& args);
KernelTable<GuidanceArgs>& guidance_table();

/// The border of an inpainting step: latents = (1 - mask) * (sigma * noise + (1 - sigma) * image) + mask * latents,
/// roundings as written. Where mask is 0 the known picture stands, at the noise level that the step ended at.
struct BlendKnownArgs {
  TensorView image;  // [B, C, height, width] f32, contiguous
  TensorView noise;  // as image
  TensorView mask;   // [B, height, width] f32, contiguous; 1 = repaint
  float sigma = 0.0f;
  TensorView latents;  // as image; read and written
};
void blend_known(ExecutionContext& context, const BlendKnownArgs& args);
KernelTable<BlendKnownArgs>& blend_known_table();

/// out[b, y, x, c] = latents[b, c, y, x] / scaling_factor + shift_factor: the decoder's input, channels last.
struct LatentsToDecoderArgs {
  TensorView latents;  // [B, C, height, width] f32
  float scaling_factor = 1.0f;
  float shift_factor = 0.0f;
  TensorView out;  // [B, height, width, C] f32 | bf16
};
void latents_to_decoder(ExecutionContext& context, const LatentsToDecoderArgs& args);
KernelTable<LatentsToDecoderArgs>& latents_to_decoder_table();

/// out = round_half_even(255 * clamp(x / 2 + 0.5, 0, 1)) as 8-bit (diffusers' numpy rounding). NaN becomes 0: the
/// caller checks finiteness first.
struct ToPixelsArgs {
  TensorView x;    // [B, height, width, 3] f32 | bf16
  TensorView out;  // same shape, i8 storage holding unsigned bytes
};
void to_pixels(ExecutionContext& context, const ToPixelsArgs& args);
KernelTable<ToPixelsArgs>& to_pixels_table();

/// *all_finite = 1 when no element is NaN or infinite, else 0.
struct CheckFiniteArgs {
  TensorView x;           // f32, contiguous
  TensorView all_finite;  // [1] i32
};
void check_finite(ExecutionContext& context, const CheckFiniteArgs& args);
KernelTable<CheckFiniteArgs>& check_finite_table();

}  // namespace octavo::ops
