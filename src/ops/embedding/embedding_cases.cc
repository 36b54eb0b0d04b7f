#include "ops/embedding/embedding.h"
#include "ops/op_cases.h"

namespace octavo::ops {

CaseList embedding_cases(device::Device& device) {
  std::vector<OpCase> cases;
  const DeviceTraits& traits = device.traits();
  const auto tensors = std::make_shared<CaseTensors>(device);
  const std::int64_t tokens = 77, width = 192, heads = 4;
  const TensorView table = tensors->random(DType::kBF16, {1000, width});
  const TensorView ids = tensors->zeros(DType::kI32, {2, tokens});
  const auto elements = static_cast<double>(2 * tokens * width);
  cases.push_back(make_case(embedding_table(), embedding, traits, tensors,
                            {.ids = ids,
                             .table = table,
                             .positions = tensors->random(DType::kBF16, {tokens, width}),
                             .out = tensors->zeros(DType::kF32, {2, tokens, width})},
                            "2x77x192", elements, 8 * elements));
  const TensorView timesteps = tensors->random(DType::kF32, {20});
  cases.push_back(make_case(timestep_embedding_table(), timestep_embedding, traits, tensors,
                            {.timesteps = timesteps, .out = tensors->zeros(DType::kF32, {20, 256})}, "20x256",
                            20.0 * 20 * 256, 4.0 * 20 * 257));
  cases.push_back(make_case(relative_bias_table(), relative_bias, traits, tensors,
                            {.table = tensors->random(DType::kBF16, {32, heads}),
                             .out = tensors->zeros(DType::kF32, {heads, tokens, tokens})},
                            "4x77x77", 0, 4.0 * static_cast<double>(heads * tokens * tokens)));
  return cases;
}

}  // namespace octavo::ops
