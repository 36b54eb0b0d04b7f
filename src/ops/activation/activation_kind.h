// The activations of the model, shared by epilogues and the stand-alone op.
#pragma once

namespace octavo::ops {

enum class Activation {
  kNone,
  kSilu,       // x * sigmoid(x)
  kGeluTanh,   // 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): MMDiT, T5 "gelu_new"
  kGeluErf,    // 0.5 x (1 + erf(x / sqrt 2)): CLIP-G
  kQuickGelu,  // x * sigmoid(1.702 x): CLIP-L
};

}  // namespace octavo::ops
