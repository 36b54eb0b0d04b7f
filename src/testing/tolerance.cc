#include "testing/tolerance.h"

#include <array>

namespace octavo::testing {

const Tolerance kExact{"exact", 0, 0, "defined bit for bit: copies, integer work, formulas with fixed roundings"};

const Tolerance kOpF32{"op_f32", 1e-5, 1e-4,
                       "sums of up to 10^4 f32 products in another order than the reference's: random rounding grows as "
                       "sqrt(K) * 2^-24, about 6e-6 of the result's norm; one element may be 10 times worse"};

const Tolerance kOpBf16Stored{"op_bf16_stored", 2.5e-3, 4e-2,
                              "bf16 keeps 8 bits: rounding to nearest errs by at most 2^-9 of a value, 1.1e-3 of the norm "
                              "when uniform; twice that where a sum lands on the other side of a rounding border. One "
                              "large element, 10 times the mean, may be half a unit (2^-8) off"};

const Tolerance kOpBf16Rounded{"op_bf16_rounded", 5e-3, 8e-2,
                               "as op_bf16_stored, and the attention weights are rounded to bf16 once before their "
                               "product with v, which adds an independent error of the same size"};

const Tolerance kForwardF32{"forward_f32", 1e-4, 1e-2,
                            "op errors of 1e-5 add up as random walks over some ten blocks; the issue's bound for a "
                            "forward"};

const Tolerance kForwardBf16{"forward_bf16", 5e-2, 1.0,
                             "every product's input is rounded to 8 bits: 2e-3 an op, growing with depth; the residual "
                             "stream itself stays f32"};

std::span<const Tolerance> all_tolerances() {
  static const std::array<Tolerance, 6> table{kExact,         kOpF32,      kOpBf16Stored,
                                              kOpBf16Rounded, kForwardF32, kForwardBf16};
  return table;
}

}  // namespace octavo::testing
