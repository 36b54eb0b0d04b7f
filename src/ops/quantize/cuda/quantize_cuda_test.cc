// The GPU's codes against the CPU's, bit for bit.
#include <cmath>
#include <limits>

#include "ops/cuda/gpu_op_test.h"
#include "ops/quantize/quantize.h"

namespace octavo::ops {
namespace {

constexpr DType kFormats[] = {DType::kE4M3, DType::kE5M2, DType::kI8};
constexpr ScaleGrain kGrains[] = {ScaleGrain::kTensor, ScaleGrain::kRow, ScaleGrain::kBlock128};

struct Case {
  DType format = DType::kE4M3;
  ScaleGrain grain = ScaleGrain::kRow;
  bool multiplier = false;
  std::vector<std::int32_t> outliers = {};
};

TestTensor whole_numbers(const std::vector<std::int32_t>& values) {
  TestTensor tensor(DType::kI32, {static_cast<std::int64_t>(values.size())});
  std::memcpy(tensor.view().data(), values.data(), values.size() * sizeof(std::int32_t));
  return tensor;
}

void expect_equal_to_reference(GpuContext& gpu, const Case& c, const TestTensor& x) {
  TestContext cpu;
  const Shape shape = x.view().shape();
  const std::int64_t rows = shape.element_count() / shape[-1];
  const TestTensor multiplier = TestTensor::random(DType::kF32, Shape{shape[-1]}, 2, 0.3f, 1.0f);
  TestTensor codes(c.format, shape), scales(DType::kF32, scale_shape(c.grain, rows, shape[-1]));
  if (c.grain == ScaleGrain::kTensor) scales.view().f32()[0] = 0.02f;
  QuantizeArgs args;
  args.x = x;
  if (c.multiplier) args.multiplier = multiplier;
  args.out = {codes, scales, c.grain};
  const auto count = static_cast<std::int64_t>(c.outliers.size());
  const TestTensor columns = whole_numbers(c.outliers.empty() ? std::vector<std::int32_t>{0} : c.outliers);
  Shape split_shape = shape.rank() == 3 ? Shape{shape[0], shape[1], std::max<std::int64_t>(count, 1)}
                                        : Shape{shape[0], std::max<std::int64_t>(count, 1)};
  const TestTensor split(DType::kBF16, split_shape);
  const GpuTensor gpu_x(gpu, x), gpu_multiplier(gpu, multiplier), gpu_codes(gpu, codes), gpu_scales(gpu, scales),
      gpu_columns(gpu, columns), gpu_split(gpu, split);
  if (count > 0) {
    args.outliers = columns;
    args.outlier_values = split;
  }
  quantize(cpu.with_row("quantize", "reference"), args);
  args.x = gpu_x;
  if (c.multiplier) args.multiplier = gpu_multiplier;
  args.out = {gpu_codes, gpu_scales, c.grain};
  if (count > 0) {
    args.outliers = gpu_columns;
    args.outlier_values = gpu_split;
  }
  quantize(gpu.get(), args);
  const std::string name = fmt::format("{} {} {} {} outliers {}", shape.to_string(), dtype_name(x.view().dtype()),
                                       dtype_name(c.format), scale_grain_name(c.grain), count);
  EXPECT_TRUE(gpu_codes.download().same_bytes(codes)) << name;
  EXPECT_TRUE(same_bits(gpu_scales.download(), scales)) << name;
  EXPECT_TRUE(gpu_split.download().same_bytes(split)) << name;
}

TEST(QuantizeCuda, equals_the_reference_bit_for_bit) {
  OCTAVO_REQUIRE_GPU();
  GpuContext gpu;
  for (const Shape& shape : {Shape{1, 1}, Shape{3, 37}, Shape{2, 3, 128}, Shape{2, 5, 300}, Shape{4, 1536},
                             Shape{4, 2432}, Shape{3, 6144}, Shape{3, 9728}, Shape{2, 16384}, Shape{2, 10001}}) {
    for (const DType x : {DType::kF32, DType::kBF16, DType::kF16}) {
      for (const DType format : kFormats) {
        for (const ScaleGrain grain : kGrains) {
          for (const std::int64_t padding : {0, 5, 8}) {
            expect_equal_to_reference(gpu, {.format = format, .grain = grain},
                                      TestTensor::random(x, shape, 1, 2.0f, 0.1f, padding));
          }
        }
      }
    }
  }
}

TEST(QuantizeCuda, multipliers_and_split_columns_equal_the_reference) {
  OCTAVO_REQUIRE_GPU();
  GpuContext gpu;
  for (const Shape& shape : {Shape{2, 7, 300}, Shape{3, 2432}}) {
    for (const std::vector<std::int32_t>& outliers :
         {std::vector<std::int32_t>{}, {0}, {299}, {0, 1, 2, 127, 128, 255, 256, 299}, {5, 130, 131, 132}}) {
      for (const DType x : {DType::kF32, DType::kBF16}) {
        for (const ScaleGrain grain : kGrains) {
          for (const bool multiplier : {false, true}) {
            expect_equal_to_reference(gpu, {.grain = grain, .multiplier = multiplier, .outliers = outliers},
                                      TestTensor::random(x, shape, 1, 2.0f));
          }
        }
      }
    }
  }
}

TEST(QuantizeCuda, hostile_rows_equal_the_reference) {
  OCTAVO_REQUIRE_GPU();
  GpuContext gpu;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kHostile[] = {0.0f, -0.0f, 1e-45f, 1e-40f, 1.2e-38f, 3e38f, -kInfinity, kInfinity, kNan};
  for (const DType format : kFormats) {
    for (const ScaleGrain grain : kGrains) {
      TestTensor x = TestTensor::random(DType::kF32, Shape{static_cast<std::int64_t>(std::size(kHostile)) * 2, 152}, 1);
      for (std::size_t i = 0; i < std::size(kHostile); ++i) {
        float* row = x.view().f32() + 2 * i * 152;
        for (int k = 0; k < 152; ++k) row[k] = kHostile[i];     // a row of it
        x.view().f32()[(2 * i + 1) * 152 + 140] = kHostile[i];  // a row with one
      }
      expect_equal_to_reference(gpu, {.format = format, .grain = grain}, x);
    }
  }
}

/// The device's conversions against tensor/float8.h: all bf16 values, and floats around every rounding boundary.
TEST(QuantizeCuda, every_value_is_coded_as_the_hosts_conversions_say) {
  OCTAVO_REQUIRE_GPU();
  GpuContext gpu;
  TestTensor all(DType::kBF16, Shape{256, 256});
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    all.view().as<BFloat16>()[bits] = {static_cast<std::uint16_t>(bits)};
  }
  std::vector<float> edges;
  for (const auto& values : {kE4M3Values, kE5M2Values}) {
    for (std::size_t code = 0; code + 1 < 128; ++code) {
      const float low = values[code], high = values[code + 1];
      const float middle = std::isfinite(high) ? low + (high - low) / 2 : low + low / 16;
      for (const float edge : {low, middle}) {
        for (const float value : {edge, std::nextafter(edge, 0.0f), std::nextafter(edge, 1e30f)}) {
          edges.push_back(value);
          edges.push_back(-value);
        }
      }
    }
  }
  for (int i = -260; i <= 260; ++i) {
    const float half = static_cast<float>(i) / 2;
    for (const float value : {half, std::nextafter(half, -1e30f), std::nextafter(half, 1e30f)}) edges.push_back(value);
  }
  TestTensor floats(DType::kF32, Shape{1, static_cast<std::int64_t>(edges.size())});
  std::memcpy(floats.view().data(), edges.data(), edges.size() * sizeof(float));
  for (const TestTensor* x : {&all, &floats}) {
    for (const DType format : kFormats) {
      const Shape shape = x->view().shape();
      TestTensor scale(DType::kF32, {1});
      scale.view().f32()[0] = 1.0f;
      const TestTensor poison(format, shape);
      const GpuTensor there(gpu, *x), one(gpu, scale), codes(gpu, poison);
      quantize(gpu.get(), {.x = there,
                           .multiplier = {},
                           .outliers = {},
                           .out = {codes, one, ScaleGrain::kTensor},
                           .outlier_values = {}});
      const TestTensor found = codes.download();
      std::int64_t wrong = 0;
      for (std::int64_t r = 0; r < shape[0]; ++r) {
        const Row values(*x, {r});
        for (std::int64_t i = 0; i < shape[1]; ++i) {
          const float value = values[i];
          const int expected = format == DType::kE4M3   ? to_float8_e4m3(value).bits
                               : format == DType::kE5M2 ? to_float8_e5m2(value).bits
                                                        : static_cast<std::uint8_t>(to_int8_code(value));
          const int code = static_cast<const std::uint8_t*>(found.view().data())[r * shape[1] + i];
          if (code != expected && ++wrong < 10) {
            ADD_FAILURE() << dtype_name(format) << " " << value << ": " << code << ", expected " << expected;
          }
        }
      }
      EXPECT_EQ(wrong, 0) << dtype_name(format);
    }
  }
}

}  // namespace
}  // namespace octavo::ops
