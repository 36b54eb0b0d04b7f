// What the tests of this folder share: small random models from the synthesiser, written, loaded and run.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <boost/json/parse.hpp>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "models/mmdit/mmdit.h"
#include "tensor/convert.h"
#include "weights/safetensors.h"
#include "weights/synthesis/synthetic_source.h"

namespace octavo::quantize::test {

/// Removed with all it holds at the end of the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "octavo_quantize_XXXXXX").string();
    OCTAVO_CHECK(::mkdtemp(pattern.data()) != nullptr, "cannot make a folder like {}", pattern);
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// "tiny": octavo-tiny's sizes; "medium": three blocks of Stable Diffusion 3.5 Medium, two heads wide, two of them with
/// a second attention.
inline weights::ModelSizes small_sizes(const std::string& family) {
  weights::SizeReductions reductions;
  if (family == "medium") reductions = {.blocks = 3, .heads = 2, .width_of_t5 = 128, .width_of_vae = 32};
  auto sizes = weights::model_sizes(family, reductions, {.clip_l = 100, .clip_g = 100, .t5 = 100});
  OCTAVO_CHECK(sizes.ok(), "{}", sizes.status().to_string());
  if (family == "medium") {
    sizes->transformer.dual_blocks = 2;
    sizes->transformer.position_side = 16;
  }
  return *sizes;
}

inline std::size_t transformer_of(const weights::TensorSource& source) {
  for (std::size_t part = 0; part < source.parts().size(); ++part) {
    if (source.parts()[part].part == weights::Part::kTransformer) return part;
  }
  OCTAVO_CHECK(false, "the source has no transformer");
  return 0;
}

/// A tensor of the transformer as it is stored, widened to f32.
inline std::vector<float> values_of(const weights::TensorSource& source, const std::string& name) {
  const std::size_t part = transformer_of(source);
  const auto& tensors = source.parts()[part].tensors;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].name != name) continue;
    const std::int64_t count = tensors[i].shape.element_count();
    const DType stored = tensors[i].dtype;
    std::vector<std::byte> bytes(static_cast<std::size_t>(count) * dtype_size(stored));
    const Status status = source.read(part, i, 0, count, stored, bytes.data());
    OCTAVO_CHECK(status.ok(), "{}", status.to_string());
    std::vector<float> values(static_cast<std::size_t>(count));
    convert_elements(bytes.data(), stored, reinterpret_cast<std::byte*>(values.data()), DType::kF32, count);
    return values;
  }
  OCTAVO_CHECK(false, "no tensor {}", name);
  return {};
}

/// The velocity of one fixed input (16 x 16 latents, 7 text tokens, two rows) by the transformer of a source, each
/// tensor in its own dtype, arithmetic in f32.
inline std::vector<float> velocity_of(const weights::TensorSource& source, device::TapSink* tap = nullptr) {
  const TemporaryFolder folder;
  const std::size_t index = transformer_of(source);
  const weights::SourcePart& part = source.parts()[index];
  std::vector<std::vector<std::byte>> bytes;
  std::vector<weights::NamedTensor> named;
  for (std::size_t i = 0; i < part.tensors.size(); ++i) {
    const weights::SourceTensor& tensor = part.tensors[i];
    bytes.emplace_back(static_cast<std::size_t>(tensor.shape.element_count()) * dtype_size(tensor.dtype));
    const Status status = source.read(index, i, 0, tensor.shape.element_count(), tensor.dtype, bytes.back().data());
    OCTAVO_CHECK(status.ok(), "{}", status.to_string());
    named.push_back({tensor.name, TensorView(bytes.back().data(), tensor.dtype, tensor.shape)});
  }
  const auto path = folder.path() / "transformer.safetensors";
  Status status = weights::write_safetensors(path, named);
  OCTAVO_CHECK(status.ok(), "{}", status.to_string());
  auto file = weights::SafetensorsFile::open(path);
  OCTAVO_CHECK(file.ok(), "{}", file.status().to_string());
  auto store = weights::WeightStore::open("transformer", {*file});
  OCTAVO_CHECK(store.ok(), "{}", store.status().to_string());
  const auto device = device::create_cpu_device();
  const auto stream = device->create_stream();
  auto mmdit = models::Mmdit::load(
      *device, {"transformer", boost::json::parse(part.config).get_object(), std::move(*store)}, DType::kF32);
  OCTAVO_CHECK(mmdit.ok(), "{}", mmdit.status().to_string());

  const auto& config = mmdit->config();
  constexpr std::int64_t kRows = 2, kTokens = 7, kSide = 16;
  const auto filled = [](std::int64_t count, float frequency) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = 1.5f * std::sin(frequency * static_cast<float>(i + 1));
    return values;
  };
  const std::vector<float> latents = filled(kRows * config.in_channels * kSide * kSide, 0.37f);
  const std::vector<float> text = filled(kRows * kTokens * config.context_width, 0.11f);
  const std::vector<float> pooled = filled(kRows * config.pooled_width, 0.23f), timesteps = {700.0f};
  std::vector<float> context_rows(static_cast<std::size_t>(kRows * kTokens * config.width));
  std::vector<float> modulations(static_cast<std::size_t>(kRows * mmdit->modulation_width()));
  std::vector<float> velocity(latents.size());
  const Shape latent_shape{kRows, config.in_channels, kSide, kSide};
  const models::MmditConditioning conditioning{
      TensorView(context_rows.data(), DType::kF32, Shape{kRows, kTokens, config.width}),
      TensorView(modulations.data(), DType::kF32, Shape{kRows, mmdit->modulation_width()}), kRows};
  device::Arena arena;
  device::ExecutionContext context(*device, *stream, arena);
  const auto forward = [&] {
    mmdit->prepare(context, TensorView(text.data(), DType::kF32, Shape{kRows, kTokens, config.context_width}),
                   TensorView(pooled.data(), DType::kF32, Shape{kRows, config.pooled_width}),
                   TensorView(timesteps.data(), DType::kF32, Shape{1}), conditioning);
    mmdit->predict(context, TensorView(latents.data(), DType::kF32, latent_shape), 0, conditioning,
                   TensorView(velocity.data(), DType::kF32, latent_shape));
  };
  arena.set_measuring(true);
  forward();
  const std::size_t peak = arena.peak_bytes();
  arena.set_measuring(false);
  status = arena.reserve(*device, peak);
  OCTAVO_CHECK(status.ok(), "{}", status.to_string());
  context.set_tap(tap);
  forward();
  return velocity;
}

/// |a - b| / |b|.
inline double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  OCTAVO_CHECK(a.size() == b.size(), "{} against {} values", a.size(), b.size());
  double error = 0, power = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    power += static_cast<double>(b[i]) * b[i];
  }
  return std::sqrt(error / power);
}

}  // namespace octavo::quantize::test
