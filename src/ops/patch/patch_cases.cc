#include "ops/op_cases.h"
#include "ops/patch/patch.h"

namespace octavo::ops {

CaseList patch_cases(device::Device& device) {
  std::vector<OpCase> cases;
  const DeviceTraits& traits = device.traits();
  const auto tensors = std::make_shared<CaseTensors>(device);
  const TensorView latents = tensors->random(DType::kF32, {1, 16, 32, 32});
  const TensorView tokens = tensors->zeros(DType::kF32, {2, 256, 64});
  cases.push_back(make_case(patchify_table(), patchify, traits, tensors, {.latents = latents, .out = tokens},
                            "2x16x32x32", 0, 4.0 * 3 * 16384));
  const TensorView x = tensors->zeros(DType::kF32, {2, 256, 192});
  const TensorView table = tensors->zeros(DType::kBF16, {24, 24, 192});  // zeros: x stays as it is
  cases.push_back(make_case(add_positions_table(), add_positions, traits, tensors,
                            {.x = x, .table = table, .rows = 16, .columns = 16}, "2x256x192", 2.0 * 256 * 192,
                            2.0 * 256 * 192 * 10));
  cases.push_back(make_case(unpatchify_table(), unpatchify, traits, tensors,
                            {.tokens = tokens, .out = tensors->zeros(DType::kF32, {2, 16, 32, 32})}, "2x16x32x32", 0,
                            8.0 * 2 * 16384));
  return cases;
}

}  // namespace octavo::ops
