// The convolutions of octavo-tiny's decoder at 256x256; on a GPU those of the released one at 1024x1024.
#include <span>

#include "ops/conv2d/conv2d.h"
#include "ops/op_cases.h"

namespace octavo::ops {
namespace {

struct ConvShape {
  std::int64_t side, in_channels, out_channels, kernel;
  bool upsample = false;
  bool residual = false;
};

constexpr ConvShape kShapes[] = {
    {32, 16, 96, 3},        {32, 96, 96, 3, false, true},
    {32, 96, 96, 3, true},  {64, 96, 96, 3, false, true},
    {64, 96, 96, 3, true},  {128, 96, 64, 3},
    {128, 96, 64, 1},       {128, 64, 64, 3, false, true},
    {128, 64, 64, 3, true}, {256, 64, 32, 3},
    {256, 64, 32, 1},       {256, 32, 32, 3, false, true},
    {256, 32, 3, 3},
};

/// Of the released autoencoder at 1024x1024.
constexpr ConvShape kFullSize[] = {
    {128, 16, 512, 3},        {128, 512, 512, 3, false, true},
    {128, 512, 512, 3, true}, {256, 512, 512, 3, false, true},
    {256, 512, 512, 3, true}, {512, 512, 256, 3},
    {512, 512, 256, 1},       {512, 256, 256, 3, false, true},
    {512, 256, 256, 3, true}, {1024, 256, 128, 3},
    {1024, 256, 128, 1},      {1024, 128, 128, 3, false, true},
    {1024, 128, 3, 3},
};

}  // namespace

CaseList conv2d_cases(device::Device& device) {
  std::vector<OpCase> cases;
  for (const DType dtype : case_dtypes(device.traits())) {
    for (const ConvShape& shape : full_size(device.traits()) ? std::span<const ConvShape>(kFullSize) : kShapes) {
      auto tensors = std::make_shared<CaseTensors>(device);
      const std::int64_t out_side = shape.upsample ? 2 * shape.side : shape.side;
      Conv2dArgs args;
      args.x = tensors->random(dtype, Shape{1, shape.side, shape.side, shape.in_channels});
      const TensorView plain =
          tensors->random(DType::kF16, Shape{shape.out_channels, shape.in_channels, shape.kernel, shape.kernel}, 0.05f);
      OCTAVO_ASSIGN_OR_RETURN(args.weight, pack_conv_weight(device, plain, dtype, shape.upsample));
      // As layers::Convolution has it: on a GPU of the activations' type.
      const bool on_cpu = device.traits().kind == DeviceKind::kCpu;
      args.bias = tensors->random(on_cpu ? DType::kF32 : dtype, Shape{shape.out_channels});
      args.pad_before = args.pad_after = static_cast<int>(shape.kernel / 2);
      args.upsample = shape.upsample;
      args.out = tensors->zeros(dtype, Shape{1, out_side, out_side, shape.out_channels});
      if (shape.residual) args.residual = args.out;
      const double flops = 2.0 * static_cast<double>(args.out.element_count()) *
                           static_cast<double>(shape.in_channels * shape.kernel * shape.kernel);
      const auto bytes = static_cast<double>(args.x.byte_count() + args.out.byte_count() + plain.byte_count());
      cases.push_back(make_case(conv2d_table(), conv2d, device.traits(), tensors, args,
                                fmt::format("{0}x{0} {1}->{2} {3}x{3}{4}{5} {6}", shape.side, shape.in_channels,
                                            shape.out_channels, shape.kernel, shape.upsample ? " upsample" : "",
                                            shape.residual ? " residual" : "", dtype_name(dtype)),
                                flops, bytes));
    }
  }
  return cases;
}

}  // namespace octavo::ops
