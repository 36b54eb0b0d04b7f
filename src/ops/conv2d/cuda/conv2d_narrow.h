// A 3x3 convolution into at most 8 channels (the decoder's last, into colours), for which cuDNN computes 64.
#pragma once

#include "ops/conv2d/conv2d.h"

namespace octavo::ops {

/// bf16 x of whole multiples of 32 channels, stride 1.
bool conv2d_narrow_fits(const Conv2dArgs& args);
/// `taps` [8, 3, 3, Cin] bf16, as packed for cuDNN.
void conv2d_narrow(ExecutionContext& context, const Conv2dArgs& args, const void* taps);

}  // namespace octavo::ops
