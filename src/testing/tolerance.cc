#include "testing/tolerance.h"

#include <array>

namespace octavo::testing {

const Tolerance kExact{"exact", 0, 0, "defined bit for bit: copies, integer work, formulas with fixed roundings"};

const Tolerance kOpF32{
    "op_f32", 1e-5, 1e-4,
    "sums of up to 10^4 f32 products in another order than the reference's: random rounding grows as "
    "sqrt(K) * 2^-24, about 6e-6 of the result's norm; one element may be 10 times worse"};

const Tolerance kOpBf16Stored{
    "op_bf16_stored", 2.5e-3, 4e-2,
    "bf16 keeps 8 bits: rounding to nearest errs by at most 2^-9 of a value, 1.1e-3 of the norm "
    "when uniform; twice that where a sum lands on the other side of a rounding border. One "
    "large element, 10 times the mean, may be half a unit (2^-8) off"};

const Tolerance kOpBf16Rounded{"op_bf16_rounded", 5e-3, 8e-2,
                               "as op_bf16_stored, and the attention weights are rounded to bf16 once before their "
                               "product with v, which adds an independent error of the same size"};

const Tolerance kOpFloat8Product{
    "op_float8_product", 3e-3, 8e-2,
    "Hopper's tensor cores keep some 14 bits of a running sum of products of 8-bit floats; measured on an H100: 1e-4 "
    "of "
    "the norm at K = 128, 1e-3 at 2432, 2.3e-3 at 9728, where the codes themselves err by 3e-2"};

const Tolerance kOpFloat8Stored{
    "op_float8_stored", 1.5e-2, 5e-1,
    "an element at a rounding border lands on the other code, an eighth of its size away: half of the mean for one "
    "that is four times the mean. Few do, so that the norm of it all is below half of what rounding itself does "
    "(3e-2)"};

const Tolerance kOpFloat8Weights{
    "op_float8_weights", 6e-2, 1.0,
    "attention weights rounded to E4M3 err by 3e-2 each, independently: 3e-2 of a sum with values without a mean, and "
    "as much again where that becomes a code, up to two codes from the reference's. A score factor a tenth too large "
    "gives 1e-1"};

const Tolerance kForwardF32{"forward_f32", 1e-4, 1e-2,
                            "op errors of 1e-5 add up as random walks over some ten blocks; the project's bound for a "
                            "forward"};

const Tolerance kForwardBf16{"forward_bf16", 5e-2, 1.0,
                             "every product's input is rounded to 8 bits: 2e-3 an op, growing with depth; the residual "
                             "stream itself stays f32"};

const Tolerance kForwardQuantized{
    "forward_quantized", 1.5e-2, 2e-1,
    "sums that differ by 1e-7 put an element at a rounding border on the other code, an eighth of its size away in "
    "E4M3; what follows in that token then rounds its own way. Half of what quantising itself does (3e-2)"};

const Tolerance kTrajectoryF32{"trajectory_f32", 1e-3, 1e-1,
                               "a forward's error, times the guidance scale, is fed back into the model at every step; "
                               "where the picture is undecided between two shapes it grows"};

const PictureTolerance kPictureF32{
    "picture_f32", 0.999, 1, 3,
    "the issue's bound: rounding to 8 bits turns any difference, however small, into one "
    "level where a value lies at a border; edges are steep, so a pixel there may move by "
    "more"};

std::span<const Tolerance> all_tolerances() {
  static const std::array<Tolerance, 11> table{
      kExact,           kOpF32,      kOpBf16Stored, kOpBf16Rounded,    kOpFloat8Product, kOpFloat8Stored,
      kOpFloat8Weights, kForwardF32, kForwardBf16,  kForwardQuantized, kTrajectoryF32};
  return table;
}

}  // namespace octavo::testing
