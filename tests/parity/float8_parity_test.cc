// The FP8 conversions against torch's casts (tools/reference/record_float8.py) and CUDA's cuda_fp8.h
// (tools/reference/record_cuda_fp8.py). Torch and CUDA's saturating conversion, which src/tensor/float8.h follows,
// differ in two places: E5M2 above its largest value, and the sign of NaN.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

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

/// CUDA's conversion as the recording holds it: the first positive float of every code. The recorder has seen that this
/// describes all 2^32 floats.
class CudaConversion {
 public:
  explicit CudaConversion(const std::string& format) : first_(fixture_[format + ".first"]) {
    for (std::int64_t i = 0; i < first_.element_count(); ++i) {
      limits_.push_back(static_cast<std::uint32_t>(first_.as<std::int32_t>()[i]));
    }
  }
  const std::vector<std::uint32_t>& limits() const { return limits_; }
  std::uint8_t encode(float value) const {
    if (std::isnan(value)) return 0x7F;
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const auto codes = std::upper_bound(limits_.begin(), limits_.end(), bits & 0x7FFFFFFFu) - limits_.begin();
    return static_cast<std::uint8_t>(codes | ((bits >> 24) & 0x80u));
  }
  const Fixture& fixture() const { return fixture_; }

 private:
  const Fixture fixture_{"tensor/cuda_fp8.safetensors"};
  const TensorView first_;
  std::vector<std::uint32_t> limits_;
};

TEST_P(Float8Parity, every_bf16_value_encodes_as_in_cuda) {
  const CudaConversion cuda(GetParam());
  std::uint64_t hash = 0xCBF29CE484222325u;  // FNV-1a, as the recorder has it
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const std::uint8_t code = encode(to_float(BFloat16{static_cast<std::uint16_t>(bits)}));
    EXPECT_EQ(code, cuda.encode(to_float(BFloat16{static_cast<std::uint16_t>(bits)}))) << bits;
    hash = (hash ^ code) * 0x100000001B3u;
  }
  EXPECT_EQ(std::to_string(hash), cuda.fixture().metadata(GetParam() + ".bf16"));
}

TEST_P(Float8Parity, floats_encode_as_in_cuda_at_every_boundary_and_between) {
  const CudaConversion cuda(GetParam());
  ASSERT_EQ(cuda.limits().size(), GetParam() == "e4m3" ? 0x7Eu : 0x7Bu);
  for (const std::uint32_t limit : cuda.limits()) {
    for (const std::uint32_t bits : {limit - 1, limit, limit + 1}) {
      for (const std::uint32_t sign : {0u, 0x80000000u}) {
        const auto value = std::bit_cast<float>(bits | sign);
        EXPECT_EQ(encode(value), cuda.encode(value)) << std::hexfloat << value;
      }
    }
  }
  constexpr std::uint32_t kStep = 1009;  // 4.3 million of all the floats
  for (std::uint64_t bits = 0; bits < 0x100000000u; bits += kStep) {
    const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    ASSERT_EQ(encode(value), cuda.encode(value)) << std::hexfloat << value;
  }
}

TEST_P(Float8Parity, every_code_decodes_as_in_cuda) {
  const CudaConversion cuda(GetParam());
  const TensorView values = cuda.fixture()[GetParam() + ".values"];
  for (int code = 0; code < 256; ++code) {
    const auto byte = static_cast<std::uint8_t>(code);
    const float ours = GetParam() == "e4m3" ? to_float(Float8E4M3{byte}) : to_float(Float8E5M2{byte});
    const float theirs = to_float(Float16{static_cast<std::uint16_t>(values.as<std::int32_t>()[code])});
    if (std::isnan(theirs)) {
      EXPECT_TRUE(std::isnan(ours)) << code;
    } else {
      EXPECT_EQ(std::bit_cast<std::uint32_t>(ours), std::bit_cast<std::uint32_t>(theirs)) << code;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(formats, Float8Parity, ::testing::Values("e4m3", "e5m2"),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace octavo::parity
