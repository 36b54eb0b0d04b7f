#include "ops/cast/cast.h"
#include "ops/op_cases.h"

namespace octavo::ops {

CaseList cast_cases(device::Device& device) {
  std::vector<OpCase> cases;
  const auto tensors = std::make_shared<CaseTensors>(device);
  const Shape shape{512, 768};
  const auto elements = static_cast<double>(shape.element_count());
  struct Pair {
    DType from, to;
  };
  for (const Pair& pair :
       {Pair{DType::kF32, DType::kBF16}, Pair{DType::kBF16, DType::kF32}, Pair{DType::kF16, DType::kF32}}) {
    const double bytes = static_cast<double>(dtype_size(pair.from) + dtype_size(pair.to)) * elements;
    cases.push_back(make_case(
        cast_table(), cast, device.traits(), tensors,
        {.x = tensors->random(pair.from, shape), .out = tensors->zeros(pair.to, shape)},
        "512x768 " + std::string(dtype_name(pair.from)) + " to " + std::string(dtype_name(pair.to)), 0, bytes));
  }
  return cases;
}

}  // namespace octavo::ops
