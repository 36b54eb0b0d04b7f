#include "device/cuda_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace octavo::device {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(ParseDevice, names_choose_a_kind_and_a_gpu) {
  EXPECT_EQ(parse_device("auto")->kind, DeviceChoice::Kind::kAuto);
  EXPECT_EQ(parse_device("cpu")->kind, DeviceChoice::Kind::kCpu);
  EXPECT_EQ(parse_device("cuda")->kind, DeviceChoice::Kind::kCuda);
  EXPECT_EQ(parse_device("cuda")->cuda.index, 0);
  EXPECT_EQ(parse_device("cuda:3")->kind, DeviceChoice::Kind::kCuda);
  EXPECT_EQ(parse_device("cuda:3")->cuda.index, 3);
}

TEST(ParseDevice, anything_else_is_refused_with_what_is_allowed) {
  for (const std::string text :
       {"", "gpu", "CUDA", "cpu:0", "cuda:", "cuda3", "cuda:x", "cuda:-1", "cuda:1 ", "cuda:1x", "cuda:99999999999"}) {
    const Status refused = parse_device(text).status();
    EXPECT_EQ(refused.code(), ErrorCode::kInvalidArgument) << text;
    EXPECT_THAT(refused.to_string(),
                AllOf(HasSubstr("--device"), HasSubstr("auto, cpu, cuda or cuda:N"), HasSubstr("'" + text + "'")));
  }
}

}  // namespace
}  // namespace octavo::device
