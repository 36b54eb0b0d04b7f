#include "testing/expect_close.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <vector>

namespace octavo::testing {
namespace {

TEST(ExpectClose, reports_errors_and_the_worst_index) {
  const std::vector<float> expected{3, 4, 0, 0};
  const std::vector<float> actual{3, 4, 0, 0.5f};
  const Shape shape{2, 2};
  const Difference difference =
      compare(TensorView(actual.data(), DType::kF32, shape), TensorView(expected.data(), DType::kF32, shape));
  EXPECT_DOUBLE_EQ(difference.relative_error, 0.1);
  EXPECT_DOUBLE_EQ(difference.max_error, 0.2);  // root mean square of expected is 2.5
  EXPECT_EQ(difference.worst_index, 3);
}

TEST(ExpectClose, exact_takes_equal_and_refuses_one_unit) {
  const std::vector<float> a{1.0f};
  const std::vector<float> b{std::nextafter(1.0f, 2.0f)};
  const TensorView view_a(a.data(), DType::kF32, Shape{1});
  const TensorView view_b(b.data(), DType::kF32, Shape{1});
  EXPECT_TRUE(expect_close(view_a, view_a, kExact));
  EXPECT_FALSE(expect_close(view_a, view_b, kExact));
}

TEST(ExpectClose, a_nan_on_one_side_is_never_close) {
  const std::vector<float> a{1, std::numeric_limits<float>::quiet_NaN()};
  const std::vector<float> b{1, 2};
  const TensorView view_a(a.data(), DType::kF32, Shape{2});
  const TensorView view_b(b.data(), DType::kF32, Shape{2});
  EXPECT_FALSE(expect_close(view_a, view_b, kForwardBf16));
  EXPECT_FALSE(expect_close(view_b, view_a, kForwardBf16));
  EXPECT_TRUE(expect_close(view_a, view_a, kExact));
  EXPECT_EQ(compare(view_a, view_b).worst_index, 1);
}

TEST(ExpectClose, reads_strides_and_dtypes) {
  std::vector<BFloat16> wide(6);
  for (int i = 0; i < 6; ++i) wide[i] = to_bfloat16(static_cast<float>(i));
  const TensorView column = TensorView(wide.data(), DType::kBF16, Shape{2, 3}).slice(1, 1, 2);
  EXPECT_EQ(to_floats(column), (std::vector<float>{1, 2, 4, 5}));
}

TEST(ExpectClose, another_shape_fails_with_both_shapes) {
  const std::vector<float> a(4);
  const auto result =
      expect_close(TensorView(a.data(), DType::kF32, Shape{4}), TensorView(a.data(), DType::kF32, Shape{2, 2}), kOpF32);
  EXPECT_FALSE(result);
  EXPECT_NE(std::string(result.message()).find("[2, 2]"), std::string::npos);
}

TEST(ExpectClose, poison_marks_only_the_view) {
  std::vector<float> data(4, 1.0f);
  poison(TensorView(data.data(), DType::kF32, Shape{2, 2}).slice(1, 1, 1));
  EXPECT_EQ(data[0], 1.0f);
  EXPECT_TRUE(std::isnan(data[1]));
  EXPECT_EQ(data[2], 1.0f);
  EXPECT_TRUE(std::isnan(data[3]));
}

TEST(Tolerances, names_are_unique_and_each_has_a_reason) {
  std::set<std::string_view> names;
  for (const Tolerance& tolerance : all_tolerances()) {
    EXPECT_TRUE(names.insert(tolerance.name).second) << tolerance.name;
    EXPECT_FALSE(tolerance.reason.empty()) << tolerance.name;
  }
}

TEST(ExpectPicturesClose, counts_pixels_and_bounds_the_worst) {
  const PictureTolerance tolerance{"t", 0.75, 1, 3, "reason"};
  const std::vector<std::uint8_t> expected = {10, 20, 30, 40, 50, 60, 70, 80, 90, 0, 255, 128};
  EXPECT_TRUE(expect_pictures_close(expected, expected, 3, tolerance));
  std::vector<std::uint8_t> actual = expected;
  actual[1] += 1;   // near
  actual[10] -= 3;  // one pixel of four is further
  EXPECT_TRUE(expect_pictures_close(actual, expected, 3, tolerance));
  actual[11] += 3;  // the same pixel
  EXPECT_TRUE(expect_pictures_close(actual, expected, 3, tolerance));
  actual[0] -= 2;  // a second one
  EXPECT_FALSE(expect_pictures_close(actual, expected, 3, tolerance));
  actual = expected;
  actual[6] += 4;
  const auto far = expect_pictures_close(actual, expected, 3, tolerance);
  EXPECT_FALSE(far);
  EXPECT_NE(std::string(far.message()).find("the worst, 2, 4 apart"), std::string::npos) << far.message();
  EXPECT_FALSE(expect_pictures_close({expected.data(), 9}, expected, 3, tolerance));
  EXPECT_FALSE(expect_pictures_close({}, {}, 3, tolerance));
}

}  // namespace
}  // namespace octavo::testing
