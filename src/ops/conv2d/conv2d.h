// conv2d: channels-last convolution of the autoencoder.
#pragma once

#include "ops/matmul/matmul.h"

namespace octavo::ops {

struct ConvWeight {
  TensorView plain;  // [Cout, Cin, kh, kw] as in the file, f32 | f16 | bf16
  std::shared_ptr<const PackedWeight> packed;
  DType packed_for = DType::kF32;
};

struct Conv2dArgs {
  TensorView x;         // [B, height, width, Cin] f32 | bf16, contiguous
  ConvWeight weight;    // kernel 1x1 or 3x3
  TensorView bias;      // [Cout] f32 | bf16
  TensorView residual;  // as out, f32 | bf16, added last, or undefined; may be out
  int stride = 1;
  int pad_before = 1;  // top and left
  int pad_after = 1;   // bottom and right (the encoder's downsampling pads 0 before, 1 after)
  // x is a band of one taller picture (B = 1) and already holds one more row there, which stands instead of the
  // padding; with `upsample` one more row before doubling, of which the nearer half is read.
  bool halo_above = false;
  bool halo_below = false;
  bool upsample = false;  // the input is read as if doubled by nearest neighbour; out is [B, 2 height, 2 width, Cout]
  TensorView out;         // [B, height', width', Cout] f32 | bf16, contiguous
};

/// Accumulates in f32.
void conv2d(ExecutionContext& context, const Conv2dArgs& args);
KernelTable<Conv2dArgs>& conv2d_table();

/// What the kernel sees of x along the height, after doubling and with the halo counted.
struct ConvRows {
  std::int64_t skipped = 0;  // doubled rows before the first that is read
  std::int64_t rows = 0;     // rows that are read
  int pad_before = 0;
  int pad_after = 0;
};
ConvRows conv_rows(const Conv2dArgs& args);

/// As pack_matmul_weight. `upsamples`: the weight is for calls with `upsample` alone, which a device may compute in
/// another way.
Result<ConvWeight> pack_conv_weight(device::Device& device, const TensorView& plain, DType activation_dtype,
                                    bool upsamples = false);

/// As MatmulPacker.
using ConvPacker = Result<ConvWeight> (*)(device::Device& device, const TensorView& plain, DType activation_dtype,
                                          bool upsamples);
void set_conv_packer(ConvPacker packer);

}  // namespace octavo::ops
