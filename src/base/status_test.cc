#include "base/status.h"

#include <gtest/gtest.h>

#include "base/ids.h"

namespace octavo {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return invalid_argument("value", "must be even");
  return value / 2;
}

Result<int> quarter(int value) {
  OCTAVO_ASSIGN_OR_RETURN(int halved, half(value));
  return half(halved);
}

TEST(Result, carries_value_or_error) {
  EXPECT_EQ(*quarter(8), 2);
  EXPECT_EQ(quarter(6).status().to_string(), "value: must be even");
  EXPECT_EQ(quarter(3).status().code(), ErrorCode::kInvalidArgument);
}

TEST(Result, reading_a_missing_value_is_a_check_failure) { EXPECT_THROW(half(1).value(), CheckFailure); }

TEST(Check, message_is_formatted_with_its_arguments) {
  try {
    OCTAVO_CHECK(1 == 2, "saw {}", 7);
    FAIL();
  } catch (const CheckFailure& failure) {
    EXPECT_NE(std::string(failure.what()).find("saw 7"), std::string::npos);
  }
}

TEST(RandomId, has_32_hex_digits_and_does_not_repeat) {
  EXPECT_EQ(random_id().size(), 32u);
  EXPECT_NE(random_id(), random_id());
}

}  // namespace
}  // namespace octavo
