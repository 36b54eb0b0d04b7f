// expect_close: tensors compared by the table of tolerances; the message says how far and where first.
#pragma once

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

#include "tensor/tensor.h"
#include "testing/tolerance.h"

namespace octavo::testing {

struct Difference {
  double relative_error = 0;      // |a - b| / |b|; |a| itself when b is all zero
  double max_error = 0;           // largest |a_i - b_i| over the root mean square of b
  std::int64_t worst_index = -1;  // row-major; the first of the largest, or the first NaN that only one side has
  double worst_actual = 0;
  double worst_expected = 0;
  bool not_finite = false;  // a NaN or infinity on one side that the other does not have
};

/// Both f32, f16, bf16, i8 or i32, any strides, same shape.
Difference compare(const TensorView& actual, const TensorView& expected);

/// EXPECT_TRUE(expect_close(actual, expected, kOpF32)): fails with errors, bounds, reason and index.
::testing::AssertionResult expect_close(const TensorView& actual, const TensorView& expected,
                                        const Tolerance& tolerance);

/// The same for interleaved 8-bit pixels of `channels` values; the message names the worst pixel by its index.
::testing::AssertionResult expect_pictures_close(std::span<const std::uint8_t> actual,
                                                 std::span<const std::uint8_t> expected, int channels,
                                                 const PictureTolerance& tolerance);

/// A contiguous copy as float, row-major.
std::vector<float> to_floats(const TensorView& view);

/// Fills with NaN (integers: 0x7F bytes), so that an element nobody wrote is seen.
void poison(const TensorView& view);

}  // namespace octavo::testing
