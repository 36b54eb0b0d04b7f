// The rows of the sample tables.
#pragma once

#include "ops/sample/sample.h"

namespace octavo::ops {

void lincomb_reference(ExecutionContext& context, const LincombArgs& args, void* scratch);
void guidance_reference(ExecutionContext& context, const GuidanceArgs& args, void* scratch);
void latents_to_decoder_reference(ExecutionContext& context, const LatentsToDecoderArgs& args, void* scratch);
void to_pixels_reference(ExecutionContext& context, const ToPixelsArgs& args, void* scratch);
void check_finite_reference(ExecutionContext& context, const CheckFiniteArgs& args, void* scratch);

}  // namespace octavo::ops
