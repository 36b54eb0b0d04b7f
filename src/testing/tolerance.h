// Tolerances: how close is close enough, in one table with reasons. Tests name a row; none invents a number.
#pragma once

#include <span>
#include <string_view>

namespace octavo::testing {

/// Both bounds must hold. `relative_error` is |actual - expected|_2 / |expected|_2 over the whole tensor;
/// `max_error` is the largest |actual_i - expected_i| over the root mean square of `expected`, so that it does not
/// depend on the tensor's scale and a single wrong element cannot hide in a long tensor.
struct Tolerance {
  std::string_view name;
  double relative_error = 0;
  double max_error = 0;
  std::string_view reason;
};

/// Every bit equal (a NaN equals a NaN).
extern const Tolerance kExact;
/// One op in f32.
extern const Tolerance kOpF32;
/// One op whose inputs are equal and whose output is stored as bf16.
extern const Tolerance kOpBf16Stored;
/// One op that also rounds intermediates to bf16 (attention's weights before the product with v).
extern const Tolerance kOpBf16Rounded;
/// A product of 8-bit floats on tensor cores.
extern const Tolerance kOpFloat8Product;
/// One op whose inputs are equal and whose output is stored as E4M3 codes of one scale.
extern const Tolerance kOpFloat8Stored;
/// The same of attention that also rounds its weights to E4M3 before their product with v.
extern const Tolerance kOpFloat8Weights;
/// An encoder, the VAE or one MMDiT forward in f32 against PyTorch's f32.
extern const Tolerance kForwardF32;
/// The same in bf16 arithmetic against f32.
extern const Tolerance kForwardBf16;
/// A forward with quantised products against PyTorch's with the same formula.
extern const Tolerance kForwardQuantized;
/// Latents after a whole denoise loop in f32 against PyTorch's.
extern const Tolerance kTrajectoryF32;

/// 8-bit pictures: at least `close_fraction` of the pixels (all channels of them) at most `close_levels` of 255 apart,
/// and none more than `max_levels`.
struct PictureTolerance {
  std::string_view name;
  double close_fraction = 1;
  int close_levels = 0;
  int max_levels = 0;
  std::string_view reason;
};
/// A picture drawn in f32 against diffusers' of the same seed and settings.
extern const PictureTolerance kPictureF32;

/// Every row of the first kind, for docs/numerics.md and the test that it is sane.
std::span<const Tolerance> all_tolerances();

}  // namespace octavo::testing
