#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>

#include "device/arena.h"
#include "device/cpu/cpu_info.h"
#include "device/device.h"

namespace octavo::device {
namespace {

TEST(CpuDevice, memory_is_aligned_and_writable) {
  const auto device = create_cpu_device();
  for (const std::size_t bytes : {1ul, 63ul, 4097ul, (2ul << 20) - 1, 5ul << 20}) {
    auto buffer = device->allocate(bytes);
    ASSERT_TRUE(buffer.ok());
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer->data()) % 256, 0u);
    EXPECT_EQ(buffer->byte_count(), bytes);
    auto* data = static_cast<unsigned char*>(buffer->data());
    data[0] = 1;
    data[bytes - 1] = 2;
    EXPECT_EQ(data[bytes - 1], 2);
  }
}

TEST(CpuDevice, more_memory_than_there_is_is_an_error_with_advice) {
  const auto device = create_cpu_device();
  const auto buffer = device->allocate(std::numeric_limits<std::size_t>::max() - 100);
  ASSERT_FALSE(buffer.ok());
  EXPECT_EQ(buffer.status().code(), ErrorCode::kResourceExhausted);
}

TEST(CpuDevice, thread_count_is_what_was_asked_or_at_least_one) {
  EXPECT_EQ(create_cpu_device(3)->traits().thread_count, 3);
  EXPECT_GE(create_cpu_device()->traits().thread_count, 1);
}

TEST(CpuDevice, traits_are_consistent) {
  const DeviceTraits traits = create_cpu_device()->traits();
  EXPECT_TRUE(!traits.has_avx512_bf16 || traits.has_avx512);
  EXPECT_TRUE(!traits.has_avx512 || traits.has_avx2);
  EXPECT_EQ(traits.preferred_dtype, traits.has_avx512_bf16 ? DType::kBF16 : DType::kF32);
  EXPECT_GT(traits.total_memory_bytes, 1u << 20);
  EXPECT_NE(traits.name.find("thread"), std::string::npos);
}

TEST(CpuInfo, the_environment_can_lower_the_instruction_set) {
  ASSERT_EQ(setenv("OCTAVO_MAX_ISA", "baseline", 1), 0);
  DeviceTraits traits;
  detect_instruction_sets(traits);
  unsetenv("OCTAVO_MAX_ISA");
  EXPECT_FALSE(traits.has_avx2 || traits.has_avx512 || traits.has_avx512_bf16);
}

class CgroupQuota : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::path(testing::TempDir()) / "octavo_cgroup";
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  void write(const char* name, const char* text) { std::ofstream(directory_ / name) << text; }
  std::filesystem::path directory_;
};

TEST_F(CgroupQuota, version_2_quota_over_period) {
  write("cpu.max", "150000 100000\n");
  EXPECT_DOUBLE_EQ(cgroup_quota(directory_), 1.5);
}

TEST_F(CgroupQuota, max_is_no_quota) {
  write("cpu.max", "max 100000\n");
  EXPECT_EQ(cgroup_quota(directory_), 0);
}

TEST_F(CgroupQuota, version_1_and_its_unlimited) {
  write("cpu.cfs_period_us", "100000\n");
  write("cpu.cfs_quota_us", "200000\n");
  EXPECT_DOUBLE_EQ(cgroup_quota(directory_), 2.0);
  write("cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(cgroup_quota(directory_), 0);
}

TEST_F(CgroupQuota, garbage_and_nothing_are_no_quota) {
  EXPECT_EQ(cgroup_quota(directory_ / "missing"), 0);
  write("cpu.max", "banana 0\n");
  EXPECT_EQ(cgroup_quota(directory_), 0);
}

TEST(Arena, scopes_give_back_in_stack_order_and_measuring_needs_no_memory) {
  const auto device = create_cpu_device();
  Arena arena;
  arena.set_measuring(true);
  {
    const Arena::Scope scope(arena);
    EXPECT_EQ(arena.take(DType::kF32, Shape{100}).data(), nullptr);
    arena.take(DType::kBF16, Shape{3, 5});
  }
  EXPECT_EQ(arena.used_bytes(), 0u);
  const std::size_t peak = arena.peak_bytes();
  EXPECT_EQ(peak, 512u + 256u);
  arena.set_measuring(false);
  ASSERT_TRUE(arena.reserve(*device, peak).ok());
  const Arena::Scope scope(arena);
  const TensorView first = arena.take(DType::kF32, Shape{100});
  void* second = nullptr;
  {
    const Arena::Scope inner(arena);
    second = arena.take(DType::kI8, Shape{256}).data();
  }
  EXPECT_NE(first.data(), second);
  EXPECT_EQ(arena.take(DType::kI8, Shape{1}).data(), second);
  EXPECT_THROW(arena.take(DType::kF32, Shape{100}), CheckFailure);
}

}  // namespace
}  // namespace octavo::device
