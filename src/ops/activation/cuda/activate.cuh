// The activations on a GPU, for every kernel that ends in one.
//
// x * sigmoid(z) is x / (1 + exp(-z)) with the hardware's exponential and division; where exp overflows the quotient is
// 0, as it should be. gelu_erf takes erfcf, which is right for the far negative side too.
#pragma once

#include "ops/activation/activation_kind.h"

namespace octavo::ops::cuda {

__device__ inline float times_sigmoid(float x, float argument) { return __fdividef(x, 1.0f + __expf(-argument)); }

/// `kind` is the same for all threads: the branch is one.
__device__ inline float activate(Activation kind, float x) {
  switch (kind) {
    case Activation::kNone:
      return x;
    case Activation::kSilu:
      return times_sigmoid(x, x);
    case Activation::kGeluTanh:  // 0.5 (1 + tanh u) is sigmoid(2u)
      return times_sigmoid(x, __fmul_rn(x, fmaf(__fmul_rn(x, x), 0.0713548162726f, 1.5957691216f)));
    case Activation::kGeluErf:
      return __fmul_rn(__fmul_rn(0.5f, x), erfcf(__fmul_rn(x, -0.70710678118654752f)));
    case Activation::kQuickGelu:
      return times_sigmoid(x, __fmul_rn(1.702f, x));
  }
  return x;
}

}  // namespace octavo::ops::cuda
