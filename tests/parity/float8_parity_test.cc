// The FP8 conversions against torch's casts (tools/reference/record_float8.py). Torch and CUDA's saturating conversion,
// which src/tensor/float8.h follows, differ in two places: E5M2 above its largest value, and the sign of NaN.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "tensor/float8.h"
#include "tests/parity/fixture.h"

namespace octavo::parity {
namespace {

std::uint8_t byte_of(const TensorView& view, std::int64_t index) {
  return static_cast<const std::uint8_t*>(view.data())[index];
}

void expect_torch_code(const std::string& format, float value, std::uint8_t ours, std::uint8_t torch) {
  if (std::isnan(value)) {
    EXPECT_EQ(ours, 0x7F);
    EXPECT_EQ(torch & 0x7F, 0x7F);
  } else if (format == "e5m2" && (torch & 0x7F) == 0x7C) {
    EXPECT_EQ(ours, (torch & 0x80) | 0x7B) << value;
  } else {
    EXPECT_EQ(ours, torch) << std::hexfloat << value;
  }
}

class Float8Parity : public ::testing::TestWithParam<std::string> {
 protected:
  static std::uint8_t encode(float value) {
    return GetParam() == "e4m3" ? to_float8_e4m3(value).bits : to_float8_e5m2(value).bits;
  }
  const Fixture fixture_{"tensor/float8.safetensors"};
};

TEST_P(Float8Parity, every_bf16_value_encodes_as_in_torch) {
  const TensorView codes = fixture_["bf16." + GetParam()];
  ASSERT_EQ(codes.element_count(), 0x10000);
  for (int bits = 0; bits < 0x10000; ++bits) {
    const float value = to_float(BFloat16{static_cast<std::uint16_t>(bits)});
    expect_torch_code(GetParam(), value, encode(value), byte_of(codes, bits));
  }
}

TEST_P(Float8Parity, f32_values_around_the_rounding_boundaries_encode_as_in_torch) {
  const TensorView x = fixture_["boundary.x"];
  const TensorView codes = fixture_["boundary." + GetParam()];
  ASSERT_EQ(codes.element_count(), x.element_count());
  ASSERT_GT(x.element_count(), 1000);
  for (std::int64_t i = 0; i < x.element_count(); ++i) {
    expect_torch_code(GetParam(), x.f32()[i], encode(x.f32()[i]), byte_of(codes, i));
  }
}

TEST_P(Float8Parity, every_code_decodes_as_in_torch) {
  const TensorView values = fixture_["values." + GetParam()];
  for (int code = 0; code < 256; ++code) {
    const auto byte = static_cast<std::uint8_t>(code);
    const float ours = GetParam() == "e4m3" ? to_float(Float8E4M3{byte}) : to_float(Float8E5M2{byte});
    if (std::isnan(values.f32()[code])) {
      EXPECT_TRUE(std::isnan(ours)) << code;
    } else {
      EXPECT_EQ(std::bit_cast<std::uint32_t>(ours), std::bit_cast<std::uint32_t>(values.f32()[code])) << code;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(formats, Float8Parity, ::testing::Values("e4m3", "e5m2"),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace octavo::parity
