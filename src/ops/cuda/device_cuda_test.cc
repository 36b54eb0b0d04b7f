// The GPU as a Device: memory, copies, streams, captured graphs. Skipped without a GPU, but for what needs none.
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "ops/cuda/gpu_op_test.h"

namespace octavo::ops {
namespace {

TEST(CudaBackend, opens_and_says_why_there_is_no_gpu) {
  const auto backend = device::open_cuda_backend();
  ASSERT_TRUE(backend.ok()) << backend.status().to_string();
  const auto devices = (*backend)->list_devices();
  if (!devices.ok()) {
    EXPECT_EQ(devices.status().code(), ErrorCode::kUnavailable);
  }
  const auto absent = (*backend)->create_device({.index = 99});
  EXPECT_FALSE(absent.ok());
  EXPECT_EQ(absent.status().code(), ErrorCode::kUnavailable);
}

TEST(CudaDevice, copies_are_exact_whatever_their_size) {
  OCTAVO_REQUIRE_GPU();
  device::Device& gpu = *test_gpu();
  const auto stream = gpu.create_stream();
  for (const std::size_t bytes :
       {std::size_t{1}, std::size_t{4097}, std::size_t{1} << 20, (std::size_t{100} << 20) + 3}) {
    std::vector<std::byte> source(bytes), back(bytes);
    std::uint32_t state = 1;
    for (auto& value : source) value = static_cast<std::byte>((state = state * 1664525u + 1013904223u) >> 24);
    auto there = gpu.allocate(bytes);
    auto again = gpu.allocate(bytes);
    ASSERT_TRUE(there.ok() && again.ok());
    gpu.copy_to_device(*stream, there->data(), source.data(), bytes);
    gpu.copy_within(*stream, again->data(), there->data(), bytes);
    gpu.copy_to_host(*stream, back.data(), again->data(), bytes);
    stream->synchronize();
    EXPECT_EQ(std::memcmp(source.data(), back.data(), bytes), 0) << bytes;
  }
}

TEST(CudaDevice, memory_given_back_is_reused_without_the_driver) {
  OCTAVO_REQUIRE_GPU();
  device::Device& gpu = *test_gpu();
  { const auto first = gpu.allocate(10 << 20); }
  const auto before = gpu.memory_statistics();
  { const auto second = gpu.allocate((10 << 20) - 77); }
  const auto after = gpu.memory_statistics();
  EXPECT_EQ(after.driver_allocations, before.driver_allocations);
  EXPECT_EQ(after.used_bytes, before.used_bytes);
}

TEST(CudaDevice, too_much_memory_is_an_error_and_the_device_lives_on) {
  OCTAVO_REQUIRE_GPU();
  device::Device& gpu = *test_gpu();
  const auto much = gpu.allocate(std::size_t{1} << 42);
  ASSERT_FALSE(much.ok());
  EXPECT_EQ(much.status().code(), ErrorCode::kResourceExhausted);
  EXPECT_TRUE(gpu.allocate(1 << 20).ok());
}

TEST(CudaStream, a_captured_copy_is_replayed_with_what_lies_there_then) {
  OCTAVO_REQUIRE_GPU();
  device::Device& gpu = *test_gpu();
  const auto stream = gpu.create_stream();
  const auto source = gpu.allocate(256), target = gpu.allocate(256), aside = gpu.allocate(256);
  ASSERT_TRUE(source.ok() && target.ok() && aside.ok());
  device::Stream* side = stream->side();
  ASSERT_NE(side, nullptr);
  stream->begin_capture();
  stream->fork();
  gpu.copy_within(*side, aside->data(), source->data(), 256);
  gpu.copy_within(*stream, target->data(), source->data(), 256);
  stream->join();
  const auto graph = stream->end_capture();
  for (int round = 1; round <= 3; ++round) {
    std::vector<int> values(64, round), back(64, 0), beside(64, 0);
    gpu.copy_to_device(*stream, source->data(), values.data(), 256);
    graph->launch();
    gpu.copy_to_host(*stream, back.data(), target->data(), 256);
    gpu.copy_to_host(*stream, beside.data(), aside->data(), 256);
    stream->synchronize();
    EXPECT_EQ(back, values);
    EXPECT_EQ(beside, values);
  }
}

}  // namespace
}  // namespace octavo::ops
