// The autoencoder on the GPU against itself on the CPU in f32, on random weights; and what it costs at full size.
#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "models/autoencoder_kl/decoder.h"
#include "models/autoencoder_kl/encoder.h"
#include "ops/cuda/gpu_op_test.h"
#include "ops/op_profile.h"
#include "weights/safetensors.h"

namespace octavo::models {
namespace {

using ops::GpuContext;
using ops::GpuTensor;
using ops::TestTensor;

/// Tensors of an autoencoder by name.
std::map<std::string, Shape> tensors_of(const std::vector<std::int64_t>& channels) {
  std::map<std::string, Shape> shapes;
  const auto convolution = [&](const std::string& at, std::int64_t in, std::int64_t out, std::int64_t kernel) {
    shapes[at + ".weight"] = Shape{out, in, kernel, kernel};
    shapes[at + ".bias"] = Shape{out};
  };
  const auto norm = [&](const std::string& at, std::int64_t width) {
    shapes[at + ".weight"] = shapes[at + ".bias"] = Shape{width};
  };
  const auto residual = [&](const std::string& at, std::int64_t in, std::int64_t out) {
    norm(at + ".norm1", in);
    convolution(at + ".conv1", in, out, 3);
    norm(at + ".norm2", out);
    convolution(at + ".conv2", out, out, 3);
    if (in != out) convolution(at + ".conv_shortcut", in, out, 1);
  };
  const std::int64_t deepest = channels.back();
  const auto middle = [&](const std::string& at) {
    residual(at + ".resnets.0", deepest, deepest);
    residual(at + ".resnets.1", deepest, deepest);
    norm(at + ".attentions.0.group_norm", deepest);
    for (const char* name : {"to_q", "to_k", "to_v", "to_out.0"}) {
      shapes[at + ".attentions.0." + name + ".weight"] = Shape{deepest, deepest};
      shapes[at + ".attentions.0." + name + ".bias"] = Shape{deepest};
    }
  };
  const auto levels = static_cast<int>(channels.size());
  std::int64_t in_up = deepest, in_down = channels.front();
  for (int level = 0; level < levels; ++level) {
    const std::int64_t up = channels[static_cast<std::size_t>(levels - 1 - level)];
    const std::int64_t down = channels[static_cast<std::size_t>(level)];
    const std::string ups = "decoder.up_blocks." + std::to_string(level);
    for (int i = 0; i < 3; ++i) {
      residual(ups + ".resnets." + std::to_string(i), in_up, up);
      in_up = up;
    }
    const std::string downs = "encoder.down_blocks." + std::to_string(level);
    for (int i = 0; i < 2; ++i) {
      residual(downs + ".resnets." + std::to_string(i), in_down, down);
      in_down = down;
    }
    if (level + 1 == levels) continue;
    convolution(ups + ".upsamplers.0.conv", up, up, 3);
    convolution(downs + ".downsamplers.0.conv", down, down, 3);
  }
  convolution("decoder.conv_in", 16, deepest, 3);
  middle("decoder.mid_block");
  norm("decoder.conv_norm_out", channels.front());
  convolution("decoder.conv_out", channels.front(), 3, 3);
  convolution("encoder.conv_in", 3, channels.front(), 3);
  middle("encoder.mid_block");
  norm("encoder.conv_norm_out", deepest);
  convolution("encoder.conv_out", deepest, 32, 3);
  return shapes;
}

/// An autoencoder of random weights in a file that goes with the object.
class RandomAutoencoder {
 public:
  explicit RandomAutoencoder(std::vector<std::int64_t> channels) : channels_(std::move(channels)) {
    std::string pattern = (std::filesystem::temp_directory_path() / "octavo-vae-XXXXXX").string();
    OCTAVO_CHECK(mkdtemp(pattern.data()) != nullptr, "no temporary folder");
    folder_ = pattern;
    std::vector<std::vector<std::uint16_t>> values;
    std::vector<weights::NamedTensor> tensors;
    std::uint32_t state = 1;
    for (const auto& [name, shape] : tensors_of(channels_)) {
      auto& bits = values.emplace_back(static_cast<std::size_t>(shape.element_count()));
      const double fan_in = static_cast<double>(shape.element_count()) / static_cast<double>(shape[0]);
      const float spread = shape.rank() == 1 ? 0.125f : static_cast<float>(std::sqrt(3.0 / fan_in));
      const bool is_norm = name.find("norm") != std::string::npos && name.ends_with("weight");
      for (std::uint16_t& value : bits) {
        state = state * 1664525u + 1013904223u;
        const float random = static_cast<float>(state >> 8) * 0x1p-23f - 1.0f;
        value = to_float16((is_norm ? 1.0f : 0.0f) + spread * random).bits;
      }
      tensors.push_back({name, TensorView(static_cast<void*>(bits.data()), DType::kF16, shape)});
    }
    const Status written = weights::write_safetensors(path(), tensors);
    OCTAVO_CHECK(written.ok(), "{}", written.to_string());
  }
  ~RandomAutoencoder() { std::filesystem::remove_all(folder_); }

  weights::CheckpointPart part() const {
    auto file = weights::SafetensorsFile::open(path()).value();
    auto store = weights::WeightStore::open("vae", {std::move(file)}).value();
    boost::json::object config = boost::json::parse(R"({"layers_per_block": 2, "norm_num_groups": 32,
        "latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609, "use_quant_conv": false,
        "use_post_quant_conv": false})")
                                     .as_object();
    config["block_out_channels"] = boost::json::value_from(channels_);
    return {"vae", config, std::move(store)};
  }

 private:
  std::filesystem::path path() const { return folder_ / "diffusion_pytorch_model.safetensors"; }
  std::vector<std::int64_t> channels_;
  std::filesystem::path folder_;
};

/// Plans `forward` dry, reserves, runs it; returns the bytes of the arena.
template <typename Forward>
std::size_t run(device::ExecutionContext& context, const Forward& forward) {
  device::Arena& arena = context.arena();
  arena.set_measuring(true);
  forward(context);
  const std::size_t bytes = arena.peak_bytes();
  arena.set_measuring(false);
  OCTAVO_CHECK(arena.reserve(context.device(), bytes).ok(), "no memory for {} bytes", bytes);
  forward(context);
  return bytes;
}

struct Contexts {
  GpuContext gpu{0, 0};
  std::unique_ptr<device::Device> cpu_device = device::create_cpu_device();
  std::unique_ptr<device::Stream> cpu_stream = cpu_device->create_stream();
  device::Arena cpu_arena;
  device::ExecutionContext cpu{*cpu_device, *cpu_stream, cpu_arena};
};

TEST(AutoencoderCuda, decoder_and_encoder_equal_the_cpu_whole_and_in_bands) {
  OCTAVO_REQUIRE_GPU();
  const RandomAutoencoder weights({32, 64, 96, 96});
  Contexts contexts;
  const Shape latent_shape{2, 16, 9, 14}, picture_shape{2, 72, 112, 3}, moments_shape{2, 9, 14, 32};
  const TestTensor latents = TestTensor::random(DType::kF32, latent_shape, 1);
  const TestTensor picture(DType::kF32, picture_shape), moments(DType::kF32, moments_shape);
  {
    const auto decoder = AutoencoderDecoder::load(*contexts.cpu_device, weights.part(), DType::kF32);
    const auto encoder = AutoencoderEncoder::load(*contexts.cpu_device, weights.part(), DType::kF32);
    ASSERT_TRUE(decoder.ok() && encoder.ok());
    run(contexts.cpu, [&](auto& context) { decoder->decode(context, latents, picture); });
    run(contexts.cpu, [&](auto& context) { encoder->encode(context, picture, moments); });
  }
  const GpuTensor gpu_latents(contexts.gpu, latents), gpu_picture(contexts.gpu, picture);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const testing::Tolerance& tolerance = dtype == DType::kF32 ? testing::kForwardF32 : testing::kForwardBf16;
    auto decoder = AutoencoderDecoder::load(contexts.gpu.device(), weights.part(), dtype);
    auto encoder = AutoencoderEncoder::load(contexts.gpu.device(), weights.part(), dtype);
    ASSERT_TRUE(decoder.ok()) << decoder.status().to_string();
    ASSERT_TRUE(encoder.ok()) << encoder.status().to_string();
    for (const bool bands : {false, true}) {
      AutoencoderMemory memory;
      if (bands) memory = {.whole_pixels = 0, .band_elements = 1};
      decoder->set_memory(memory);
      encoder->set_memory(memory);
      const GpuTensor drawn(contexts.gpu, TestTensor(DType::kF32, picture_shape));
      const GpuTensor encoded(contexts.gpu, TestTensor(DType::kF32, moments_shape));
      run(contexts.gpu.get(), [&](auto& context) { decoder->decode(context, gpu_latents, drawn); });
      EXPECT_TRUE(testing::expect_close(drawn.download(), picture, tolerance))
          << "decoder, " << dtype_name(dtype) << (bands ? " in bands" : "");
      run(contexts.gpu.get(), [&](auto& context) { encoder->encode(context, gpu_picture, encoded); });
      EXPECT_TRUE(testing::expect_close(encoded.download(), moments, tolerance))
          << "encoder, " << dtype_name(dtype) << (bands ? " in bands" : "");
    }
  }
}

// By hand (--gtest_also_run_disabled_tests): time and memory at the size of Stable Diffusion 3.5, op by op.
TEST(AutoencoderCuda, DISABLED_full_size) {
  OCTAVO_REQUIRE_GPU();
  const RandomAutoencoder weights({128, 256, 512, 512});
  GpuContext gpu(0, 0);
  const char* const chosen = std::getenv("OCTAVO_VAE_SIDE");
  const std::int64_t side = chosen == nullptr ? 1024 : std::atoll(chosen);
  auto decoder = AutoencoderDecoder::load(gpu.device(), weights.part(), DType::kBF16);
  ASSERT_TRUE(decoder.ok()) << decoder.status().to_string();
  const GpuTensor latents(gpu, TestTensor::random(DType::kF32, Shape{1, 16, side / 8, side / 8}, 1)),
      picture(gpu, TestTensor(DType::kF32, Shape{1, side, side, 3}));
  decoder->set_memory({.whole_pixels = side * side});
  const auto decode = [&](device::ExecutionContext& context) { decoder->decode(context, latents, picture); };
  const auto seconds = [](auto since) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
  };
  device::Stream& stream = gpu.get().stream();
  auto start = std::chrono::steady_clock::now();
  const std::size_t bytes = run(gpu.get(), decode);
  stream.synchronize();
  std::printf("%s, %d squared: first decode, plans included, %.2f s; arena %.0f MiB\n",
              gpu.device().traits().name.c_str(), static_cast<int>(side), seconds(start),
              static_cast<double>(bytes) / (1 << 20));
  constexpr int kRuns = 10;
  start = std::chrono::steady_clock::now();
  for (int i = 0; i < kRuns; ++i) decode(gpu.get());
  stream.synchronize();
  std::printf("enqueued op by op: %.2f ms\n", seconds(start) / kRuns * 1e3);
  stream.begin_capture();
  decode(gpu.get());
  const auto graph = stream.end_capture();
  graph->launch();
  stream.synchronize();
  start = std::chrono::steady_clock::now();
  for (int i = 0; i < kRuns; ++i) graph->launch();
  stream.synchronize();
  std::printf("as a graph: %.2f ms\n", seconds(start) / kRuns * 1e3);
  ops::OpProfile profile;
  gpu.get().set_op_observer(&profile);
  decode(gpu.get());
  gpu.get().set_op_observer(nullptr);
  const ops::Roofline roofline = ops::roofline_of(gpu.device().traits());
  double total = 0;
  for (const auto& row : profile.rows()) {
    total += row.seconds;
    std::printf("%8.3f ms %2d x %-18s %-8s %-60s %6.0f TFLOP/s %5.0f GB/s, floor %.3f ms\n", row.seconds * 1e3,
                row.calls, row.op.c_str(), row.row.c_str(), row.cost.shape.c_str(),
                row.cost.flops * row.calls / row.seconds * 1e-12, row.cost.bytes * row.calls / row.seconds * 1e-9,
                roofline.floor_seconds(row.cost) * row.calls * 1e3);
  }
  std::printf("sum of ops %.2f ms, span %.2f ms\n", total * 1e3, profile.span_seconds() * 1e3);
}

}  // namespace
}  // namespace octavo::models
