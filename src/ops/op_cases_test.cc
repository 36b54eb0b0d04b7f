#include "ops/op_cases.h"

#include <gtest/gtest.h>

namespace octavo::ops {
namespace {

TEST(OpCases, one_op_is_timed_with_rates_and_its_library) {
  const auto device = device::create_cpu_device();
  const auto timings = time_ops(*device, {.op = "matmul", .repeats = 1});
  ASSERT_TRUE(timings.ok());
  ASSERT_TRUE(!timings->empty() || !device->traits().has_avx2);
  for (const OpTiming& timing : *timings) {
    EXPECT_EQ(timing.op, "matmul");
    EXPECT_NE(timing.row, "reference");
    EXPECT_GT(timing.seconds, 0) << timing.shape;
    EXPECT_GT(timing.library_seconds, 0) << timing.shape;
    EXPECT_GT(timing.gflops_per_second(), 0) << timing.shape;
    EXPECT_GT(timing.gbytes_per_second(), 0) << timing.shape;
  }
}

}  // namespace
}  // namespace octavo::ops
