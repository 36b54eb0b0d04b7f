#include <cmath>

#include "ops/rows.h"
#include "ops/sample/sample_kernels.h"

namespace octavo::ops {

void lincomb_reference(ExecutionContext&, const LincombArgs& args, void*) {
  for (std::int64_t i = 0; i < args.out.element_count(); ++i) {
    float sum = 0.0f;
    for (int term = 0; term < args.term_count; ++term) {
      const auto& [coefficient, input] = args.terms[static_cast<std::size_t>(term)];
      const float product = coefficient * input.f32()[i];
      sum = term == 0 ? product : sum + product;
    }
    args.out.f32()[i] = sum;
  }
}

void guidance_reference(ExecutionContext&, const GuidanceArgs& args, void*) {
  for (std::int64_t i = 0; i < args.out.element_count(); ++i) {
    const float difference = args.cond.f32()[i] - args.uncond.f32()[i];
    const float step = args.guidance_scale * difference;
    args.out.f32()[i] = args.uncond.f32()[i] + step;
  }
}

void blend_known_reference(ExecutionContext&, const BlendKnownArgs& args, void*) {
  const std::int64_t channels = args.latents.dim(1), pixels = args.latents.dim(2) * args.latents.dim(3);
  const float clean = 1.0f - args.sigma;
  for (std::int64_t row = 0; row < args.latents.dim(0) * channels; ++row) {
    const float* mask = args.mask.f32() + row / channels * pixels;
    for (std::int64_t i = 0; i < pixels; ++i) {
      const std::int64_t at = row * pixels + i;
      const float noisy = args.sigma * args.noise.f32()[at];
      const float from_image = clean * args.image.f32()[at];
      const float known = (1.0f - mask[i]) * (noisy + from_image);
      const float drawn = mask[i] * args.latents.f32()[at];
      args.latents.f32()[at] = known + drawn;
    }
  }
}

void latents_to_decoder_reference(ExecutionContext&, const LatentsToDecoderArgs& args, void*) {
  for (std::int64_t b = 0; b < args.latents.dim(0); ++b) {
    for (std::int64_t c = 0; c < args.latents.dim(1); ++c) {
      for (std::int64_t y = 0; y < args.latents.dim(2); ++y) {
        const Row latents(args.latents, {b, c, y});
        for (std::int64_t x = 0; x < args.latents.dim(3); ++x) {
          const float unscaled = latents[x] / args.scaling_factor;
          Row(args.out, {b, y, x}).set(c, unscaled + args.shift_factor);
        }
      }
    }
  }
}

void to_pixels_reference(ExecutionContext&, const ToPixelsArgs& args, void*) {
  for (std::int64_t b = 0; b < args.x.dim(0); ++b) {
    for (std::int64_t y = 0; y < args.x.dim(1); ++y) {
      for (std::int64_t column = 0; column < args.x.dim(2); ++column) {
        const Row x(args.x, {b, y, column});
        auto* out = static_cast<std::uint8_t*>(Row::address(args.out, {b, y, column}));
        for (std::int64_t c = 0; c < 3; ++c) {
          const float half = x[c] * 0.5f;
          const float unit = half + 0.5f;
          // Written so that NaN falls to 0. nearbyint rounds ties to even in the default mode.
          const float clamped = unit > 0.0f ? (unit < 1.0f ? unit : 1.0f) : 0.0f;
          out[c] = static_cast<std::uint8_t>(std::nearbyint(clamped * 255.0f));
        }
      }
    }
  }
}

void check_finite_reference(ExecutionContext&, const CheckFiniteArgs& args, void*) {
  std::int32_t finite = 1;
  for (std::int64_t i = 0; i < args.x.element_count(); ++i) {
    if (!std::isfinite(args.x.f32()[i])) finite = 0;
  }
  *args.all_finite.as<std::int32_t>() = finite;
}

}  // namespace octavo::ops
