// The rows of the sample tables.
#pragma once

#include "ops/sample/sample.h"

namespace octavo::ops {

void lincomb_reference(ExecutionContext& context, const LincombArgs& args, void* scratch);
void guidance_reference(ExecutionContext& context, const GuidanceArgs& args, void* scratch);
void blend_known_reference(ExecutionContext& context, const BlendKnownArgs& args, void* scratch);
void latents_to_decoder_reference(ExecutionContext& context, const LatentsToDecoderArgs& args, void* scratch);
void to_pixels_reference(ExecutionContext& context, const ToPixelsArgs& args, void* scratch);
void check_finite_reference(ExecutionContext& context, const CheckFiniteArgs& args, void* scratch);

/// Elements [begin, end).
void lincomb_elements(const LincombArgs& args, std::int64_t begin, std::int64_t end);
void guidance_elements(const GuidanceArgs& args, std::int64_t begin, std::int64_t end);
/// Rows [begin, end) of the flattened [B, height].
void latents_to_decoder_rows(const LatentsToDecoderArgs& args, std::int64_t begin, std::int64_t end);
void to_pixels_rows(const ToPixelsArgs& args, std::int64_t begin, std::int64_t end);
void check_finite_vector(ExecutionContext& context, const CheckFiniteArgs& args, void* scratch);

}  // namespace octavo::ops
