#include "ops/op_cases.h"
#include "ops/sample/sample.h"

namespace octavo::ops {

CaseList sample_cases(device::Device& device) {
  std::vector<OpCase> cases;
  const DeviceTraits& traits = device.traits();
  const auto tensors = std::make_shared<CaseTensors>(device);
  const Shape shape{1, 16, 32, 32};
  const auto elements = static_cast<double>(shape.element_count());
  const TensorView x = tensors->random(DType::kF32, shape);
  const TensorView v = tensors->random(DType::kF32, shape);
  const TensorView out = tensors->zeros(DType::kF32, shape);
  const std::string name = "1x16x32x32";
  LincombArgs euler;
  euler.terms[0] = {1.0f, x};
  euler.terms[1] = {-0.05f, v};
  euler.term_count = 2;
  euler.out = out;
  cases.push_back(
      make_case(lincomb_table(), lincomb, traits, tensors, euler, name + " two terms", 3 * elements, 12 * elements));
  cases.push_back(make_case(guidance_table(), guidance, traits, tensors,
                            {.uncond = x, .cond = v, .guidance_scale = 4.0f, .out = out}, name, 3 * elements,
                            12 * elements));
  cases.push_back(make_case(check_finite_table(), check_finite, traits, tensors,
                            {.x = x, .all_finite = tensors->zeros(DType::kI32, {1})}, name, elements, 4 * elements));
  cases.push_back(make_case(latents_to_decoder_table(), latents_to_decoder, traits, tensors,
                            {.latents = x,
                             .scaling_factor = 1.5305f,
                             .shift_factor = 0.0609f,
                             .out = tensors->zeros(DType::kF32, {1, 32, 32, 16})},
                            name, 2 * elements, 8 * elements));
  const Shape pixels{1, 256, 256, 3};
  const auto samples = static_cast<double>(pixels.element_count());
  cases.push_back(make_case(to_pixels_table(), to_pixels, traits, tensors,
                            {.x = tensors->random(DType::kF32, pixels), .out = tensors->zeros(DType::kI8, pixels)},
                            "1x256x256x3", 6 * samples, 5 * samples));
  return cases;
}

}  // namespace octavo::ops
