// The group norms of octavo-tiny's decoder at 256x256; on a GPU those of the released one at 1024x1024.
#include <array>
#include <utility>

#include "ops/group_norm/group_norm.h"
#include "ops/op_cases.h"

namespace octavo::ops {
namespace {

using Sizes = std::array<std::pair<std::int64_t, std::int64_t>, 4>;  // side, channels
constexpr Sizes kTiny{{{32, 96}, {64, 96}, {128, 64}, {256, 32}}};
constexpr Sizes kFullSize{{{128, 512}, {256, 512}, {512, 256}, {1024, 128}}};

}  // namespace

CaseList group_norm_cases(device::Device& device) {
  std::vector<OpCase> cases;
  for (const DType dtype : case_dtypes(device.traits())) {
    for (const auto& [side, channels] : full_size(device.traits()) ? kFullSize : kTiny) {
      auto tensors = std::make_shared<CaseTensors>(device);
      GroupNormArgs args;
      args.x = tensors->random(dtype, Shape{1, side, side, channels});
      args.weight = tensors->random(DType::kF32, Shape{channels});
      args.bias = tensors->random(DType::kF32, Shape{channels});
      args.silu = true;
      args.out = tensors->zeros(dtype, Shape{1, side, side, channels});
      const auto elements = static_cast<double>(args.x.element_count());
      constexpr double kFlopsPerElement = 12;  // statistics 4, affine 2, SiLU some 6
      cases.push_back(make_case(group_norm_table(), group_norm, device.traits(), tensors, args,
                                fmt::format("{0}x{0}x{1} silu {2}", side, channels, dtype_name(dtype)),
                                kFlopsPerElement * elements,
                                static_cast<double>(args.x.byte_count() + args.out.byte_count())));
    }
  }
  return cases;
}

}  // namespace octavo::ops
