#include "testing/expect_close.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "tensor/float8.h"

namespace octavo::testing {
namespace {

double element(const TensorView& view, std::int64_t offset) {
  switch (view.dtype()) {
    case DType::kF32:
      return static_cast<const float*>(view.data())[offset];
    case DType::kF16:
      return to_float(static_cast<const Float16*>(view.data())[offset]);
    case DType::kBF16:
      return to_float(static_cast<const BFloat16*>(view.data())[offset]);
    case DType::kE4M3:
      return to_float(static_cast<const Float8E4M3*>(view.data())[offset]);
    case DType::kE5M2:
      return to_float(static_cast<const Float8E5M2*>(view.data())[offset]);
    case DType::kI8:
      return static_cast<const std::int8_t*>(view.data())[offset];
    case DType::kI32:
      return static_cast<const std::int32_t*>(view.data())[offset];
    default:
      break;
  }
  OCTAVO_CHECK(false, "{} cannot be compared", dtype_name(view.dtype()));
}

/// visit(offset in elements) in row-major order.
template <class Visit>
void for_each_offset(const TensorView& view, const Visit& visit) {
  const std::int64_t count = view.element_count();
  std::array<std::int64_t, Shape::kMaxRank> index{};
  for (std::int64_t i = 0; i < count; ++i) {
    std::int64_t offset = 0;
    for (int axis = 0; axis < view.rank(); ++axis) offset += index[axis] * view.stride(axis);
    visit(offset);
    for (int axis = view.rank() - 1; axis >= 0; --axis) {
      if (++index[axis] < view.dim(axis)) break;
      index[axis] = 0;
    }
  }
}

std::vector<double> to_doubles(const TensorView& view) {
  std::vector<double> values;
  values.reserve(static_cast<std::size_t>(view.element_count()));
  for_each_offset(view, [&](std::int64_t offset) { values.push_back(element(view, offset)); });
  return values;
}

bool same_non_finite(double a, double b) { return (std::isnan(a) && std::isnan(b)) || a == b; }

}  // namespace

std::vector<float> to_floats(const TensorView& view) {
  std::vector<float> values;
  values.reserve(static_cast<std::size_t>(view.element_count()));
  for_each_offset(view, [&](std::int64_t offset) { values.push_back(static_cast<float>(element(view, offset))); });
  return values;
}

void poison(const TensorView& view) {
  for_each_offset(view, [&](std::int64_t offset) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    switch (view.dtype()) {
      case DType::kF32:
        static_cast<float*>(view.data())[offset] = nan;
        break;
      case DType::kF16:
        static_cast<Float16*>(view.data())[offset] = to_float16(nan);
        break;
      case DType::kBF16:
        static_cast<BFloat16*>(view.data())[offset] = to_bfloat16(nan);
        break;
      default:
        std::memset(static_cast<std::byte*>(view.data()) + offset * static_cast<std::int64_t>(dtype_size(view.dtype())),
                    0x7F, dtype_size(view.dtype()));
    }
  });
}

Difference compare(const TensorView& actual, const TensorView& expected) {
  OCTAVO_CHECK(actual.shape() == expected.shape(), "compared {} with {}", actual.shape().to_string(),
               expected.shape().to_string());
  const std::vector<double> a = to_doubles(actual);
  const std::vector<double> b = to_doubles(expected);
  Difference difference;
  double squared_error = 0;
  double squared_norm = 0;
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) {
      if (same_non_finite(a[i], b[i])) continue;
      return {.relative_error = std::numeric_limits<double>::infinity(),
              .max_error = std::numeric_limits<double>::infinity(),
              .worst_index = static_cast<std::int64_t>(i),
              .worst_actual = a[i],
              .worst_expected = b[i],
              .not_finite = true};
    }
    const double error = std::abs(a[i] - b[i]);
    squared_error += error * error;
    squared_norm += b[i] * b[i];
    if (error > worst) {
      worst = error;
      difference.worst_index = static_cast<std::int64_t>(i);
      difference.worst_actual = a[i];
      difference.worst_expected = b[i];
    }
  }
  const double norm = std::sqrt(squared_norm);
  const double root_mean_square = a.empty() ? 0 : norm / std::sqrt(static_cast<double>(a.size()));
  difference.relative_error = norm > 0 ? std::sqrt(squared_error) / norm : std::sqrt(squared_error);
  difference.max_error = root_mean_square > 0 ? worst / root_mean_square : worst;
  return difference;
}

::testing::AssertionResult expect_close(const TensorView& actual, const TensorView& expected,
                                        const Tolerance& tolerance) {
  if (actual.shape() != expected.shape()) {
    return ::testing::AssertionFailure() << "shape " << actual.shape().to_string() << ", expected "
                                         << expected.shape().to_string();
  }
  const Difference difference = compare(actual, expected);
  const bool close =
      difference.relative_error <= tolerance.relative_error && difference.max_error <= tolerance.max_error;
  return (close ? ::testing::AssertionSuccess() : ::testing::AssertionFailure()) << fmt::format(
             "relative error {:.3g} (bound {:.3g}), max error {:.3g} (bound {:.3g}) of shape {}: element {} is "
             "{:.9g}, expected {:.9g}; tolerance {}: {}",
             difference.relative_error, tolerance.relative_error, difference.max_error, tolerance.max_error,
             actual.shape().to_string(), difference.worst_index, difference.worst_actual, difference.worst_expected,
             tolerance.name, tolerance.reason);
}

::testing::AssertionResult expect_pictures_close(std::span<const std::uint8_t> actual,
                                                 std::span<const std::uint8_t> expected, int channels,
                                                 const PictureTolerance& tolerance) {
  OCTAVO_CHECK(channels > 0, "{} channels", channels);
  const auto width = static_cast<std::size_t>(channels);
  if (actual.size() != expected.size() || actual.empty() || actual.size() % width != 0) {
    return ::testing::AssertionFailure() << actual.size() << " bytes of pixels, expected " << expected.size();
  }
  const std::size_t pixels = actual.size() / width;
  std::size_t close_pixels = 0;
  std::size_t worst_pixel = 0;
  int worst = 0;
  for (std::size_t pixel = 0; pixel < pixels; ++pixel) {
    int levels = 0;
    for (std::size_t i = pixel * width; i < (pixel + 1) * width; ++i) {
      levels = std::max(levels, std::abs(static_cast<int>(actual[i]) - static_cast<int>(expected[i])));
    }
    if (levels <= tolerance.close_levels) ++close_pixels;
    if (levels > worst) {
      worst = levels;
      worst_pixel = pixel;
    }
  }
  const double fraction = static_cast<double>(close_pixels) / static_cast<double>(pixels);
  const bool close = fraction >= tolerance.close_fraction && worst <= tolerance.max_levels;
  return (close ? ::testing::AssertionSuccess() : ::testing::AssertionFailure()) << fmt::format(
             "{:.4f} % of {} pixels within {} of 255 (bound {:.4f} %), the worst, {}, {} apart (bound {}); "
             "tolerance {}: {}",
             100 * fraction, pixels, tolerance.close_levels, 100 * tolerance.close_fraction, worst_pixel, worst,
             tolerance.max_levels, tolerance.name, tolerance.reason);
}

}  // namespace octavo::testing
