// The rows of the conv2d table.
#pragma once

#include "ops/conv2d/conv2d.h"

namespace octavo::ops {

void conv2d_reference(ExecutionContext& context, const Conv2dArgs& args, void* scratch);

bool conv2d_onednn_supports(const Conv2dArgs& args, const DeviceTraits& traits);
std::size_t conv2d_onednn_scratch_bytes(const ExecutionContext& context, const Conv2dArgs& args);
void conv2d_onednn(ExecutionContext& context, const Conv2dArgs& args, void* scratch);
/// The packed layout of oneDNN's kernels on this processor, or nothing when it has none for these activations.
Result<std::shared_ptr<const PackedWeight>> pack_onednn_conv_weight(device::Device& device, const TensorView& plain,
                                                                    DType activation_dtype);

}  // namespace octavo::ops
