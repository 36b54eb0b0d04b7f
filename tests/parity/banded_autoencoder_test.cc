// The autoencoder in bands of rows against itself on whole maps, on the recorded random models: the same picture, stage
// by stage, whatever the bands.
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
#include "testing/expect_close.h"
#include "tests/parity/recipe_model.h"
#include "weights/safetensors.h"

namespace octavo::parity {
namespace {

using testing::expect_close;

class Collector final : public device::TapSink {
 public:
  void on_tensor(std::string_view path, const TensorView& value) override {
    std::vector<float> values(static_cast<std::size_t>(value.element_count()));
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = value.dtype() == DType::kF32 ? value.f32()[i] : to_float(value.as<BFloat16>()[i]);
    }
    taps[std::string(path)] = {std::move(values), value.shape()};
  }
  std::map<std::string, std::pair<std::vector<float>, Shape>> taps;
};

/// Runs `forward` dry, then for good; returns what passed the taps.
template <typename Forward>
Collector run(device::Device& device, const Forward& forward, std::size_t* peak = nullptr) {
  const auto stream = device.create_stream();
  device::Arena arena;
  device::ExecutionContext context(device, *stream, arena);
  arena.set_measuring(true);
  forward(context);
  const std::size_t bytes = arena.peak_bytes();
  if (peak != nullptr) *peak = bytes;
  arena.set_measuring(false);
  EXPECT_TRUE(arena.reserve(device, bytes).ok());
  Collector taps;
  context.set_tap(&taps);
  forward(context);
  return taps;
}

void expect_same(Collector& bands, Collector& whole, DType dtype, const std::string& what) {
  const testing::Tolerance& tolerance = dtype == DType::kF32 ? testing::kForwardF32 : testing::kForwardBf16;
  for (auto& [name, band] : bands.taps) {
    auto& [values, shape] = whole.taps.at(name);
    EXPECT_TRUE(expect_close(TensorView(band.first.data(), DType::kF32, band.second),
                             TensorView(values.data(), DType::kF32, shape), tolerance))
        << what << ": " << name;
  }
}

/// A value for element i: nothing that repeats with rows or columns.
float value_at(std::size_t i) {
  const auto mixed = static_cast<std::uint32_t>(i) * 2654435761u;
  return static_cast<float>(mixed >> 8) * 0x1p-23f - 1.0f;
}

std::vector<float> values_for(const Shape& shape) {
  std::vector<float> values(static_cast<std::size_t>(shape.element_count()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = value_at(i);
  return values;
}

// encoder_deep narrows by two at its last level, so that its last upsampling is folded into the block; pipeline keeps.
class BandedAutoencoder : public ::testing::TestWithParam<std::tuple<std::string, DType>> {
 protected:
  BandedAutoencoder()
      : model_("image_input/" + std::get<0>(GetParam()) + ".safetensors"), dtype_(std::get<1>(GetParam())) {}
  static models::AutoencoderMemory bands_of(std::int64_t elements) {
    return {.whole_pixels = 0, .band_elements = elements};
  }
  RecipeModel model_;
  DType dtype_;
};

TEST_P(BandedAutoencoder, decoder_equals_whole_maps) {
  const auto device = device::create_cpu_device(1);
  if (dtype_ == DType::kBF16 && !device->traits().has_avx512_bf16) GTEST_SKIP() << "needs AVX512-BF16";
  auto decoder = models::AutoencoderDecoder::load(*device, model_.part("vae"), dtype_);
  ASSERT_TRUE(decoder.ok()) << decoder.status().to_string();
  const std::int64_t f = decoder->config().downscale();
  for (const auto& [height, width] : {std::pair<std::int64_t, std::int64_t>{12, 8}, {22, 5}}) {
    const Shape latent_shape{1, 16, height, width}, picture_shape{1, f * height, f * width, 3};
    std::vector<float> latents = values_for(latent_shape), picture(values_for(picture_shape));
    const auto decode = [&](device::ExecutionContext& context) {
      decoder->decode(context, TensorView(latents.data(), DType::kF32, latent_shape),
                      TensorView(picture.data(), DType::kF32, picture_shape));
    };
    decoder->set_memory({});
    run(*device, decode);
    std::vector<float> whole = picture;
    for (const std::int64_t elements : {std::int64_t{1}, std::int64_t{1} << 15}) {
      decoder->set_memory(bands_of(elements));
      std::fill(picture.begin(), picture.end(), 9.0f);
      run(*device, decode);
      EXPECT_TRUE(expect_close(TensorView(picture.data(), DType::kF32, picture_shape),
                               TensorView(whole.data(), DType::kF32, picture_shape),
                               dtype_ == DType::kF32 ? testing::kOpF32 : testing::kForwardBf16))
          << height << "x" << width << " bands of " << elements;
    }
  }
}

TEST_P(BandedAutoencoder, stages_equal_whole_maps) {
  const auto device = device::create_cpu_device(1);
  if (dtype_ == DType::kBF16 && !device->traits().has_avx512_bf16) GTEST_SKIP() << "needs AVX512-BF16";
  auto decoder = models::AutoencoderDecoder::load(*device, model_.part("vae"), dtype_);
  auto encoder = models::AutoencoderEncoder::load(*device, model_.part("vae"), dtype_);
  ASSERT_TRUE(decoder.ok() && encoder.ok());
  const std::int64_t f = decoder->config().downscale(), height = 12, width = 8;
  const Shape latent_shape{1, 16, height, width}, picture_shape{1, f * height, f * width, 3};
  const Shape moments_shape{1, height, width, 32};
  std::vector<float> latents = values_for(latent_shape), picture = values_for(picture_shape);
  std::vector<float> drawn(picture.size()), moments(values_for(moments_shape).size());
  const auto forward = [&](device::ExecutionContext& context) {
    decoder->decode(context, TensorView(latents.data(), DType::kF32, latent_shape),
                    TensorView(drawn.data(), DType::kF32, picture_shape));
    encoder->encode(context, TensorView(picture.data(), DType::kF32, picture_shape),
                    TensorView(moments.data(), DType::kF32, moments_shape));
  };
  Collector whole = run(*device, forward);
  decoder->set_memory(bands_of(1));
  encoder->set_memory(bands_of(1));
  Collector bands = run(*device, forward);
  EXPECT_GE(bands.taps.size(), 10u);
  expect_same(bands, whole, dtype_, "bands");
}

/// Writes Stable Diffusion 3.5's autoencoder at full size, every weight drawn at its fan-in's scale, to `path`.
void write_full_size(const std::filesystem::path& path) {
  const std::vector<std::int64_t> channels = {128, 256, 512, 512};
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
  const auto middle = [&](const std::string& at) {
    residual(at + ".resnets.0", 512, 512);
    residual(at + ".resnets.1", 512, 512);
    norm(at + ".attentions.0.group_norm", 512);
    for (const char* name : {"to_q", "to_k", "to_v", "to_out.0"}) {
      shapes[at + ".attentions.0." + name + ".weight"] = Shape{512, 512};
      shapes[at + ".attentions.0." + name + ".bias"] = Shape{512};
    }
  };
  const std::vector<std::int64_t> up = {512, 512, 256, 128};
  std::int64_t in_up = 512, in_down = 128;
  for (int level = 0; level < 4; ++level) {
    const std::string ups = "decoder.up_blocks." + std::to_string(level);
    for (int i = 0; i < 3; ++i) {
      residual(ups + ".resnets." + std::to_string(i), in_up, up[level]);
      in_up = up[level];
    }
    const std::string downs = "encoder.down_blocks." + std::to_string(level);
    for (int i = 0; i < 2; ++i) {
      residual(downs + ".resnets." + std::to_string(i), in_down, channels[level]);
      in_down = channels[level];
    }
    if (level == 3) continue;
    convolution(ups + ".upsamplers.0.conv", up[level], up[level], 3);
    convolution(downs + ".downsamplers.0.conv", channels[level], channels[level], 3);
  }
  convolution("decoder.conv_in", 16, 512, 3);
  middle("decoder.mid_block");
  norm("decoder.conv_norm_out", 128);
  convolution("decoder.conv_out", 128, 3, 3);
  convolution("encoder.conv_in", 3, 128, 3);
  middle("encoder.mid_block");
  norm("encoder.conv_norm_out", 512);
  convolution("encoder.conv_out", 512, 32, 3);

  std::vector<std::vector<std::uint16_t>> values;
  std::vector<weights::NamedTensor> tensors;
  for (const auto& [name, shape] : shapes) {
    auto& bits = values.emplace_back(static_cast<std::size_t>(shape.element_count()));
    const float spread = shape.rank() == 1 ? 0.125f : std::sqrt(3.0f * shape[0] / shape.element_count());
    const bool is_norm = name.find("norm") != std::string::npos && name.ends_with("weight");
    for (std::size_t i = 0; i < bits.size(); ++i)
      bits[i] = to_float16((is_norm ? 1.0f : 0.0f) + spread * value_at(i)).bits;
    tensors.push_back({name, TensorView(static_cast<void*>(bits.data()), DType::kF16, shape)});
  }
  const Status written = weights::write_safetensors(path, tensors);
  OCTAVO_CHECK(written.ok(), "{}", written.to_string());
}

weights::CheckpointPart open_full_size(const std::filesystem::path& path) {
  auto file = weights::SafetensorsFile::open(path).value();
  auto store = weights::WeightStore::open("vae", {std::move(file)}).value();
  const auto config = boost::json::parse(R"({"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
      "norm_num_groups": 32, "latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609,
      "use_quant_conv": false, "use_post_quant_conv": false})");
  return {"vae", config.as_object(), std::move(store)};
}

/// A folder with the full-size file, gone with the object.
struct FullSizeFile {
  FullSizeFile() {
    std::string pattern = (std::filesystem::temp_directory_path() / "octavo-vae-XXXXXX").string();
    OCTAVO_CHECK(mkdtemp(pattern.data()) != nullptr, "no temporary folder");
    folder = pattern;
    write_full_size(path());
  }
  ~FullSizeFile() { std::filesystem::remove_all(folder); }
  std::filesystem::path path() const { return folder / "diffusion_pytorch_model.safetensors"; }
  std::filesystem::path folder;
};

/// What a dry run takes of the arena, in MiB.
template <typename Model, typename Forward>
double planned_mib(const device::Device& device, const Model& model, const Forward& forward) {
  const auto stream = const_cast<device::Device&>(device).create_stream();
  device::Arena arena;
  device::ExecutionContext context(const_cast<device::Device&>(device), *stream, arena);
  arena.set_measuring(true);
  forward(model, context);
  const auto peak = static_cast<double>(arena.peak_bytes());
  arena.set_measuring(false);
  return peak / (1 << 20);
}

TEST(FullSizeAutoencoder, a_picture_of_2048_squared_stays_within_the_stated_bound) {
  const FullSizeFile file;
  const auto device = device::create_cpu_device(2);
  const auto dry = [](Shape shape) { return TensorView(static_cast<void*>(nullptr), DType::kF32, shape); };
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    if (dtype == DType::kBF16 && !device->traits().has_avx512_bf16) continue;
    auto decoder = models::AutoencoderDecoder::load(*device, open_full_size(file.path()), dtype);
    auto encoder = models::AutoencoderEncoder::load(*device, open_full_size(file.path()), dtype);
    ASSERT_TRUE(decoder.ok()) << decoder.status().to_string();
    ASSERT_TRUE(encoder.ok()) << encoder.status().to_string();
    const double bound_mib = dtype == DType::kF32 ? 2560 : 1280;
    for (const std::int64_t side : {512, 1024, 1536, 2048}) {
      double decoder_mib[2], encoder_mib[2];
      for (const bool bands : {false, true}) {
        const models::AutoencoderMemory memory{.whole_pixels = bands ? 0 : std::int64_t{1} << 40};
        decoder->set_memory(memory);
        encoder->set_memory(memory);
        decoder_mib[bands] = planned_mib(*device, *decoder, [&](const auto& model, auto& context) {
          model.decode(context, dry({1, 16, side / 8, side / 8}), dry({1, side, side, 3}));
        });
        encoder_mib[bands] = planned_mib(*device, *encoder, [&](const auto& model, auto& context) {
          model.encode(context, dry({1, side, side, 3}), dry({1, side / 8, side / 8, 32}));
        });
      }
      std::printf("%4d x %4d %s: decoder %.0f MiB whole, %.0f in bands; encoder %.0f whole, %.0f in bands\n",
                  static_cast<int>(side), static_cast<int>(side), std::string(dtype_name(dtype)).c_str(),
                  decoder_mib[0], decoder_mib[1], encoder_mib[0], encoder_mib[1]);
      EXPECT_LE(decoder_mib[1], bound_mib);
      EXPECT_LE(encoder_mib[1], bound_mib);
      EXPECT_LT(decoder_mib[1], 0.5 * decoder_mib[0]);
    }
  }
}

// By hand (--gtest_also_run_disabled_tests; minutes): what bands cost and change on real arithmetic.
TEST(FullSizeAutoencoder, DISABLED_seconds_and_differences) {
  const FullSizeFile file;
  const auto device = device::create_cpu_device();
  const char* const chosen = std::getenv("OCTAVO_VAE_SIDE");
  const std::int64_t side = chosen == nullptr ? 512 : std::atoll(chosen);
  const DType dtype = device->traits().preferred_dtype;
  auto decoder = models::AutoencoderDecoder::load(*device, open_full_size(file.path()), dtype);
  ASSERT_TRUE(decoder.ok()) << decoder.status().to_string();
  const Shape latent_shape{1, 16, side / 8, side / 8}, picture_shape{1, side, side, 3};
  std::vector<float> latents = values_for(latent_shape), pictures[2];
  for (const bool bands : {false, true}) {
    decoder->set_memory({.whole_pixels = bands ? 0 : std::int64_t{1} << 40});
    std::vector<float>& picture = pictures[bands];
    picture.resize(static_cast<std::size_t>(picture_shape.element_count()));
    const auto started = std::chrono::steady_clock::now();
    run(*device, [&](device::ExecutionContext& context) {
      context.set_tap(nullptr);
      decoder->decode(context, TensorView(latents.data(), DType::kF32, latent_shape),
                      TensorView(picture.data(), DType::kF32, picture_shape));
    });
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - started;
    std::printf("%4d squared, %s, %s: %.1f s\n", static_cast<int>(side), std::string(dtype_name(dtype)).c_str(),
                bands ? "bands" : "whole", passed.count());
  }
  double largest = 0, squares = 0, range = 0;
  std::size_t same = 0;
  for (std::size_t i = 0; i < pictures[0].size(); ++i) {
    const double difference = std::abs(static_cast<double>(pictures[0][i]) - pictures[1][i]);
    largest = std::max(largest, difference);
    squares += difference * difference / static_cast<double>(pictures[0].size());
    range = std::max(range, std::abs(static_cast<double>(pictures[0][i])));
    same += difference == 0 ? 1 : 0;
  }
  std::printf("differences: at most %.3g of values up to %.3g, root mean square %.3g; %.4f %% of the values equal\n",
              largest, range, std::sqrt(squares), 100.0 * static_cast<double>(same) / pictures[0].size());
  EXPECT_LE(largest, 0.05 * range);
}

INSTANTIATE_TEST_SUITE_P(Recipes, BandedAutoencoder,
                         ::testing::Combine(::testing::Values("encoder_deep", "pipeline"),
                                            ::testing::Values(DType::kF32, DType::kBF16)),
                         [](const auto& tested) {
                           return std::get<0>(tested.param) + "_" + std::string(dtype_name(std::get<1>(tested.param)));
                         });

}  // namespace
}  // namespace octavo::parity
