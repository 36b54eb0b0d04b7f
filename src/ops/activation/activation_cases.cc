#include "ops/activation/activation.h"
#include "ops/op_cases.h"

namespace octavo::ops {

CaseList activation_cases(device::Device& device) {
  std::vector<OpCase> cases;
  const DeviceTraits& traits = device.traits();
  const auto tensors = std::make_shared<CaseTensors>(device);
  if (full_size(traits)) {  // Large, in the form that writes codes too
    const Shape shape{2, 4096, 9728};
    const auto elements = static_cast<double>(shape.element_count());
    const TensorView x = tensors->random(DType::kBF16, shape, 2.0f);
    const TensorView codes = tensors->zeros(DType::kE4M3, shape), scale = tensors->zeros(DType::kF32, {2 * 4096});
    cases.push_back(make_case(activation_table(), activation, traits, tensors,
                              {.activation = Activation::kGeluTanh, .x = x, .out = tensors->zeros(DType::kBF16, shape)},
                              "2x4096x9728 bf16 gelu_tanh", 20 * elements, 4 * elements));
    cases.push_back(make_case(activation_table(), activation, traits, tensors,
                              {.activation = Activation::kGeluTanh, .x = x, .out = codes, .out_dequant_scale = scale},
                              "2x4096x9728 bf16 gelu_tanh to e4m3", 20 * elements, 3 * elements));
    return cases;
  }
  const Shape shape{2, 256, 768};  // the hidden rows of octavo-tiny's feed-forward
  const auto elements = static_cast<double>(shape.element_count());
  const TensorView x = tensors->random(DType::kF32, shape, 2.0f);
  const TensorView out = tensors->zeros(DType::kF32, shape);
  struct Kind {
    Activation activation;
    const char* name;
  };
  for (const Kind& kind : {Kind{Activation::kSilu, "silu"}, Kind{Activation::kGeluTanh, "gelu_tanh"},
                           Kind{Activation::kGeluErf, "gelu_erf"}, Kind{Activation::kQuickGelu, "quick_gelu"}}) {
    // Counted as 20 operations an element: an exponential, a division and what is around them.
    cases.push_back(make_case(activation_table(), activation, traits, tensors,
                              {.activation = kind.activation, .x = x, .out = out},
                              "2x256x768 f32 " + std::string(kind.name), 20 * elements, 8 * elements));
  }
  return cases;
}

}  // namespace octavo::ops
