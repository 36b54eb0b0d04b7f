// Whether cuDNN computes every graph of the engine on every architecture: asked about GPUs that are described, not
// there. Says nothing of speed.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "ops/attention/cuda/attention_graph.h"
#include "ops/conv2d/cuda/conv2d_graph.h"

namespace octavo {
namespace {

using device::cuda::CudnnGraph;
using device::cuda::CudnnPlan;
using device::cuda::CudnnTarget;
using ops::AttentionProblem;
using ops::ConvProblem;

/// What NVIDIA publishes about a GPU, in the units of cuDNN's JSON.
struct Gpu {
  const char* name;
  int compute_capability;  // 900
  int multiprocessors;
  int clock_khz_times_1000;
  int memory_clock_khz;
  int l2_bytes;
  int shared_bytes;     // a block may ask for
  int blocks, threads;  // of a multiprocessor
  double memory_bytes;

  std::string properties() const {
    return fmt::format(
        R"({{"name": "{0}", "deviceName": "{0}", "deviceVer": {1}, "multiProcessorCount": {2}, "smClockRateKHz": {3},
            "memClockRateKHz": {4}, "l2CacheSize": {5}, "maxSharedMemoryPerBlockOptin": {6}, "maxCtasPerSM": {7},
            "maxThreadsPerSM": {8}, "totalGlobalMem": {9:.0f}, "driverVer": 13000, "cudaDeviceId": 0, "pciDeviceId": 0,
            "maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64], "maxThreadsPerBlock": 1024,
            "warpSize": 32, "regsPerBlock": 65536, "maxRegistersPerSM": 65536, "maxSharedMemoryPerBlock": 49152,
            "reservedSharedMemoryPerBlock": 1024, "isTccDriver": 0, "supportCoopLaunch": 1}})",
        name, compute_capability, multiprocessors, clock_khz_times_1000, memory_clock_khz, l2_bytes, shared_bytes,
        blocks, threads, memory_bytes);
  }
};

const Gpu kGpus[] = {
    {"NVIDIA H100 80GB HBM3", 900, 132, 1980000, 2619000, 50 << 20, 227 << 10, 32, 2048, 85e9},
    {"NVIDIA L40S", 890, 142, 2520000, 9001000, 96 << 20, 99 << 10, 24, 1536, 48e9},
    {"NVIDIA A100-SXM4-80GB", 800, 108, 1410000, 1593000, 40 << 20, 163 << 10, 32, 2048, 85e9},
};

class CudnnSupport : public ::testing::TestWithParam<Gpu> {
 protected:
  CudnnSupport() : target_(CudnnTarget::from_properties(GetParam().properties())) {}
  void SetUp() override { ASSERT_TRUE(target_.ok()) << target_.status().to_string(); }

  /// Configs that the engine would try: deterministic, and with f32 products that are f32's.
  int usable(const CudnnGraph& graph, bool exact_products, std::string& reason) const {
    const auto configs = graph.configs(*target_);
    if (!configs.ok()) {
      reason = configs.status().to_string();
      return 0;
    }
    int count = 0;
    for (const auto& config : *configs) {
      if (config.deterministic && (config.exact_products || !exact_products)) ++count;
    }
    return count;
  }

  void expect_convolution(const ConvProblem& problem) const {
    std::string reason;
    EXPECT_GT(usable(problem.graph(), problem.x == DType::kF32, reason), 0) << problem.key() << " " << reason;
  }

  Result<CudnnTarget> target_;
};

INSTANTIATE_TEST_SUITE_P(Gpus, CudnnSupport, ::testing::ValuesIn(kGpus),
                         [](const auto& gpu) { return fmt::format("sm_{}", gpu.param.compute_capability / 10); });

ConvProblem convolution(std::int64_t side, std::int64_t in, std::int64_t out, std::int64_t kernel = 3) {
  ConvProblem problem;
  problem.height = problem.width = side;
  problem.in_channels = in;
  problem.out_channels = out;
  problem.kernel = kernel;
  problem.rows = problem.columns = {kernel / 2, kernel / 2};
  problem.bias = true;
  return problem;
}

/// Levels of Stable Diffusion 3.5's autoencoder at 1024x1024 and of octavo-tiny's at 256x256: side, channels, and the
/// channels of the level below (0 = there is none).
struct Level {
  std::int64_t side, channels, below;
};
const Level kLevels[] = {{128, 512, 512}, {256, 512, 512}, {512, 256, 512}, {1024, 128, 256},
                         {32, 96, 96},    {64, 96, 96},    {128, 64, 96},   {256, 32, 64}};

TEST_P(CudnnSupport, convolutions_of_whole_pictures) {
  for (const Level& level : kLevels) {
    for (const std::int64_t batch : {1, 4}) {
      for (const bool residual : {false, true}) {
        ConvProblem problem = convolution(level.side, level.channels, level.channels);
        problem.batch = batch;
        problem.residual = residual;
        expect_convolution(problem);
      }
    }
    expect_convolution(convolution(level.side, level.below, level.channels));
    expect_convolution(convolution(level.side, level.below, level.channels, 1));
    ConvProblem down = convolution(level.side, level.channels, level.channels);
    down.stride = 2;
    down.rows = down.columns = {0, 1};
    expect_convolution(down);
  }
  for (const std::int64_t channels : {96, 512}) {
    expect_convolution(convolution(128, 16, channels));  // latents
    ConvProblem moments = convolution(128, channels, 32);
    moments.out = DType::kF32;
    expect_convolution(moments);
  }
  for (const std::int64_t channels : {32, 128}) {
    expect_convolution(convolution(1024, 8, channels));  // a picture, its colours padded
    ConvProblem picture = convolution(1024, channels, 8);
    picture.out = DType::kF32;
    picture.bias = false;
    expect_convolution(picture);
  }
}

TEST_P(CudnnSupport, upsampling_by_phases) {
  for (const Level& level : kLevels) {
    for (const auto& [before, after] : {std::pair{1, 1}, {1, 0}, {0, 0}, {0, 1}}) {
      ConvProblem problem = convolution(level.side, level.channels, 4 * level.channels, 2);
      problem.rows = {before, after};
      expect_convolution(problem);
    }
  }
}

TEST_P(CudnnSupport, convolutions_of_bands) {
  for (const Level& level : kLevels) {
    for (const auto& [before, after] : {std::pair{1, 0}, {0, 0}, {0, 1}}) {
      ConvProblem problem = convolution(level.side, level.channels, level.channels);
      problem.height = 34;
      problem.rows = {before, after};
      problem.residual = true;
      expect_convolution(problem);
    }
  }
}

TEST_P(CudnnSupport, convolutions_in_f32) {
  for (const Level& level : kLevels) {
    ConvProblem problem = convolution(level.side, level.channels, level.channels);
    problem.x = problem.out = DType::kF32;
    expect_convolution(problem);
    problem.bias = false;
    expect_convolution(problem);
    problem.rows = {1, 0};
    problem.height = 33;
    expect_convolution(problem);
  }
}

TEST_P(CudnnSupport, attention_of_the_transformer) {
  for (const auto& [heads, queries, keys] :
       {std::tuple{38, 4429, 4429}, {38, 4096, 4429}, {38, 1357, 1357}, {24, 4429, 4429}, {3, 410, 410}}) {
    const std::int64_t width = 64, token = heads * width;
    AttentionProblem problem{.batch = 2, .heads = heads, .queries = queries, .keys = keys, .width = width};
    for (const bool head_major : {false, true}) {
      const auto strides = [&](std::int64_t tokens) {
        return head_major ? AttentionProblem::Strides{tokens * token, tokens * width, width}
                          : AttentionProblem::Strides{tokens * token, width, token};
      };
      problem.q = strides(queries);
      problem.k = problem.v = strides(keys);
      problem.out = {queries * token, width, token};
      std::string reason;
      EXPECT_GT(usable(ops::attention_graph(problem), false, reason), 0) << problem.words() << " " << reason;
    }
  }
}

/// The row asks sm_90 alone for it: nothing older computes it, in any form.
TEST_P(CudnnSupport, attention_in_fp8_on_hopper_alone) {
  const bool hopper = GetParam().compute_capability == 900;
  for (const auto& [heads, queries, keys, width] : {std::array<std::int64_t, 4>{38, 4429, 4429, 64},
                                                    {38, 4096, 4429, 64},
                                                    {3, 70, 200, 64},
                                                    {16, 4096, 4096, 128}}) {
    const std::int64_t token = heads * width;
    for (const bool head_major : {false, true}) {
      const auto strides = [&, heads = heads, width = width](std::int64_t tokens) {
        return head_major ? AttentionProblem::Strides{tokens * token, tokens * width, width}
                          : AttentionProblem::Strides{tokens * token, width, token};
      };
      AttentionProblem problem{.batch = 2, .heads = heads, .queries = queries, .keys = keys, .width = width};
      problem.q = strides(queries);
      problem.k = problem.v = strides(keys);
      problem.out = {queries * token, width, token};
      std::string reason;
      EXPECT_EQ(usable(ops::fp8_attention_graph(problem), false, reason) > 0, hopper)
          << problem.words() << " " << reason;
    }
  }
}

TEST_P(CudnnSupport, a_stored_plan_comes_back_whole_or_not_at_all) {
  const auto configs = convolution(128, 512, 512).graph().configs(*target_);
  ASSERT_TRUE(configs.ok() && !configs->empty());
  const auto plan = CudnnPlan::build(*target_, configs->front());
  ASSERT_TRUE(plan.ok()) << plan.status().to_string();
  const auto json = (*plan)->json();
  ASSERT_TRUE(json.ok()) << json.status().to_string();
  const auto again = CudnnPlan::from_json(*target_, *json);
  ASSERT_TRUE(again.ok()) << again.status().to_string();
  EXPECT_EQ((*again)->workspace_bytes(), (*plan)->workspace_bytes());
  EXPECT_EQ((*again)->json().value(), *json);
  for (const std::size_t left : {json->size() - 1, json->size() / 2, std::size_t{0}}) {
    EXPECT_FALSE(CudnnPlan::from_json(*target_, json->substr(0, left)).ok()) << left;
  }
}

/// Or all of the above would pass whatever was asked.
TEST_P(CudnnSupport, what_cannot_be_computed_is_refused) {
  AttentionProblem problem{.batch = 1, .heads = 1, .queries = 64, .keys = 64, .width = 4100};
  problem.q = problem.k = problem.v = problem.out = {64 * 4100, 4100, 4100};
  std::string reason;
  EXPECT_EQ(usable(ops::attention_graph(problem), false, reason), 0);
}

}  // namespace
}  // namespace octavo
