// The rows of the scaled_matmul table.
#pragma once

#include "ops/scaled_matmul/scaled_matmul.h"

namespace octavo::ops {

void scaled_matmul_reference(ExecutionContext& context, const ScaledMatmulArgs& args, void* scratch);

bool scaled_matmul_decoded_supports(const ScaledMatmulArgs& args, const DeviceTraits& traits);
std::size_t scaled_matmul_decoded_scratch_bytes(const ExecutionContext& context, const ScaledMatmulArgs& args);
void scaled_matmul_decoded(ExecutionContext& context, const ScaledMatmulArgs& args, void* scratch);
/// What the row above multiplies with, or nothing when no product of this processor takes it.
Result<std::shared_ptr<const PackedWeight>> pack_decoded_weight(device::Device& device, const QuantizedView& quantized,
                                                                const TensorView& outlier_weight,
                                                                const ScaledActivations& activations);

/// sum[n] (+)= product[n] * (row_scale * column_scales[n]) for n of [0, count): set when `first`. In place allowed.
void scale_product_row(const float* product, float row_scale, const float* column_scales, bool first, float* sum,
                       std::int64_t count);
/// sum[n] += addend[n].
void add_product_row(const float* addend, float* sum, std::int64_t count);

}  // namespace octavo::ops
