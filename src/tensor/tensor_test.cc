#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace octavo {
namespace {

TEST(DType, every_half_survives_a_round_trip) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Float16 half{static_cast<std::uint16_t>(bits)};
    if (std::isnan(to_float(half))) {
      EXPECT_TRUE(std::isnan(to_float(to_float16(to_float(half)))));
    } else {
      EXPECT_EQ(to_float16(to_float(half)).bits, bits);
    }
    const BFloat16 brain{static_cast<std::uint16_t>(bits)};
    if (!std::isnan(to_float(brain))) {
      EXPECT_EQ(to_bfloat16(to_float(brain)).bits, bits);
    }
  }
}

TEST(DType, ties_round_to_even_and_overflow_becomes_infinity) {
  EXPECT_EQ(to_float16(1.0f + 0x1p-11f).bits, to_float16(1.0f).bits);
  EXPECT_EQ(to_float(to_float16(1.0f + 0x3p-11f)), 1.0f + 0x1p-9f);
  EXPECT_EQ(to_float(to_float16(65519.0f)), 65504.0f);
  EXPECT_TRUE(std::isinf(to_float(to_float16(65520.0f))));
  EXPECT_EQ(to_float(to_float16(0x1p-25f)), 0.0f);
  EXPECT_EQ(to_float(to_float16(0x1.8p-24f)), 0x1p-23f);
  EXPECT_EQ(to_float(to_bfloat16(1.0f + 0x1p-8f)), 1.0f);
  EXPECT_EQ(to_float(to_bfloat16(1.0f + 0x3p-8f)), 1.0f + 0x1p-6f);
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(TensorView, slice_keeps_strides_and_reshape_needs_contiguity) {
  std::vector<float> data(2 * 3 * 4);
  const TensorView view(data.data(), DType::kF32, Shape{2, 3, 4});
  const TensorView part = view.slice(1, 1, 2);
  EXPECT_EQ(part.shape(), (Shape{2, 2, 4}));
  EXPECT_EQ(part.stride(0), 12);
  EXPECT_EQ(part.f32(), data.data() + 4);
  EXPECT_FALSE(part.contiguous());
  EXPECT_THROW(part.reshape(Shape{16}), CheckFailure);
  EXPECT_THROW(view.slice(1, 2, 2), CheckFailure);
  EXPECT_EQ(view.reshape(Shape{6, -1 + 5}).dim(-1), 4);
}

TEST(TensorView, a_view_without_memory_is_defined_and_stays_without_memory_when_sliced) {
  EXPECT_FALSE(TensorView().defined());
  const TensorView measured(static_cast<void*>(nullptr), DType::kF32, Shape{2, 3, 4});
  EXPECT_TRUE(measured.defined());
  EXPECT_EQ(measured.slice(1, 1, 2).data(), nullptr);
  EXPECT_EQ(measured.reshape(Shape{24}).data(), nullptr);
}

}  // namespace
}  // namespace octavo
