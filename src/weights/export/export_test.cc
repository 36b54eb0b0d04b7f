#include "weights/export/export.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <sstream>

#include "tensor/convert.h"
#include "tensor/float8.h"
#include "weights/checkpoint.h"
#include "weights/export/checkpoint_source.h"
#include "weights/safetensors.h"
#include "weights/synthesis/family.h"
#include "weights/test_files.h"

namespace octavo::weights {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kWidth = 64;

/// A small model whose every value tells where it belongs: tensor number + element / 1024, exact in f32.
class NumberedSource final : public TensorSource {
 public:
  explicit NumberedSource(DType dtype = DType::kF32) {
    ModelSizes sizes = model_sizes("tiny", {.blocks = 2, .heads = 1}, {8, 8, 8}).value();
    sizes.transformer.position_side = 2;
    const auto add = [&](Part part, const std::vector<TensorShape>& tensors) {
      SourcePart& added = parts_.emplace_back(SourcePart{part, part_config(part, sizes, "float32"), {}});
      for (const TensorShape& tensor : tensors) added.tensors.push_back({tensor.name, tensor.shape, dtype});
    };
    add(Part::kTransformer, transformer_tensors(sizes.transformer));
    add(Part::kVae, vae_tensors(sizes.vae));
    add(Part::kTextEncoder, clip_tensors(sizes.clip_l));
    add(Part::kTextEncoder2, clip_tensors(sizes.clip_g));
    add(Part::kTextEncoder3, t5_tensors(sizes.t5));
  }
  const std::vector<SourcePart>& parts() const override { return parts_; }
  static float value(std::size_t tensor, std::int64_t element) {
    return static_cast<float>(tensor) + static_cast<float>(element % 1024) / 1024.0f;
  }
  Status read(std::size_t part, std::size_t tensor, std::int64_t begin, std::int64_t count, DType dtype,
              std::byte* out) const override {
    if (parts_[part].tensors[tensor].name == fails_) return data_corruption(fails_, "cannot be read");
    for (std::int64_t i = 0; i < count; ++i) {
      float number = value(tensor, begin + i);
      if (parts_[part].tensors[tensor].name == special_) number = special_value_;
      convert_elements(reinterpret_cast<const std::byte*>(&number), DType::kF32,
                       out + static_cast<std::size_t>(i) * dtype_size(dtype), dtype, 1);
    }
    return {};
  }
  void fail_at(const std::string& name) { fails_ = name; }
  void fill(const std::string& name, float with) {
    special_ = name;
    special_value_ = with;
  }
  std::size_t index_of(std::size_t part, const std::string& name) const {
    for (std::size_t i = 0; i < parts_[part].tensors.size(); ++i) {
      if (parts_[part].tensors[i].name == name) return i;
    }
    OCTAVO_CHECK(false, "no tensor {}", name);
  }

 private:
  std::vector<SourcePart> parts_;
  std::string fails_, special_;
  float special_value_ = 0;
};

std::shared_ptr<const SafetensorsFile> opened(const fs::path& path) { return SafetensorsFile::open(path).value(); }

Status write(const TensorSource& source, const ExportOptions& options, const fs::path& out,
             const ExportControl& control = {}) {
  OCTAVO_ASSIGN_OR_RETURN(const ExportPlan plan, plan_export(source.parts(), options));
  return export_checkpoint(source, plan, out, control);
}

std::vector<float> floats(const SafetensorsFile& file, const std::string& name) {
  const TensorView view = file.view(file.tensors().at(name)).value();
  std::vector<float> values(static_cast<std::size_t>(view.element_count()));
  convert_elements(static_cast<const std::byte*>(view.data()), view.dtype(),
                   reinterpret_cast<std::byte*>(values.data()), DType::kF32, view.element_count());
  return values;
}

std::size_t entries(const fs::path& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

TEST(Export, diffusers_folder_opens_with_every_value_in_its_place) {
  const test::TemporaryFolder folder;
  const NumberedSource source;
  ASSERT_TRUE(write(source, {.shard_bytes = 400'000}, folder / "model").ok());
  const fs::path transformer = folder / "model/transformer";
  ASSERT_TRUE(fs::exists(transformer / "diffusion_pytorch_model.safetensors.index.json"));
  std::size_t seen = 0, shards = 0;
  for (const auto& entry : fs::directory_iterator(transformer)) {
    if (entry.path().extension() != ".safetensors") continue;
    ++shards;
    const auto file = opened(entry.path());
    EXPECT_LE(file->data_byte_count(), 400'000u);
    for (const auto& [name, info] : file->tensors()) {
      const std::size_t tensor = source.index_of(0, name);
      EXPECT_EQ(info.shape, source.parts()[0].tensors[tensor].shape);
      const auto values = floats(*file, name);
      for (std::size_t i = 0; i < values.size(); ++i) {
        ASSERT_EQ(values[i], NumberedSource::value(tensor, static_cast<std::int64_t>(i))) << name << " " << i;
      }
      ++seen;
    }
  }
  EXPECT_GT(shards, 1u);
  EXPECT_EQ(seen, source.parts()[0].tensors.size());
}

TEST(Export, the_index_of_shards_is_what_the_folder_reader_accepts) {
  const test::TemporaryFolder folder;
  const NumberedSource source;
  const ExportOptions options{.dtype = DType::kBF16, .shard_bytes = 200'000};
  auto plan = plan_export(source.parts(), options).value();
  plan.texts["model_index.json"] = model_index_json(true);
  ASSERT_TRUE(export_checkpoint(source, plan, folder / "model", {}).ok());
  const auto model = DiffusersFolder::open(folder / "model").value();
  for (std::size_t part = 0; part < source.parts().size(); ++part) {
    const auto read = model.open_part(std::string(names_of(source.parts()[part].part).folder));
    ASSERT_TRUE(read.ok()) << read.status().to_string();
    EXPECT_EQ(read->weights.names().size(), source.parts()[part].tensors.size());
  }
}

TEST(Export, original_file_joins_swaps_and_reshapes) {
  const test::TemporaryFolder folder;
  const NumberedSource source;
  ASSERT_TRUE(write(source, {.layout = CheckpointLayout::kOriginal}, folder / "model.safetensors").ok());
  const auto file = opened(folder / "model.safetensors");

  const auto qkv = floats(*file, "model.diffusion_model.joint_blocks.1.context_block.attn.qkv.weight");
  ASSERT_EQ(qkv.size(), static_cast<std::size_t>(3 * kWidth * kWidth));
  const std::array<const char*, 3> names = {"q", "k", "v"};
  for (std::size_t third = 0; third < 3; ++third) {
    const std::size_t tensor =
        source.index_of(0, fmt::format("transformer_blocks.1.attn.add_{}_proj.weight", names[third]));
    EXPECT_EQ(qkv[third * kWidth * kWidth], NumberedSource::value(tensor, 0));
    EXPECT_EQ(qkv[(third + 1) * kWidth * kWidth - 1], NumberedSource::value(tensor, kWidth * kWidth - 1));
  }
  for (const auto& [stored, canonical] :
       {std::pair("model.diffusion_model.final_layer.adaLN_modulation.1.bias", "norm_out.linear.bias"),
        std::pair("model.diffusion_model.joint_blocks.1.context_block.adaLN_modulation.1.bias",
                  "transformer_blocks.1.norm1_context.linear.bias")}) {
    const auto bias = floats(*file, stored);
    const std::size_t tensor = source.index_of(0, canonical);
    ASSERT_EQ(bias.size(), static_cast<std::size_t>(2 * kWidth));
    EXPECT_EQ(bias[0], NumberedSource::value(tensor, kWidth)) << stored;
    EXPECT_EQ(bias[kWidth], NumberedSource::value(tensor, 0)) << stored;
  }
  EXPECT_EQ(file->tensors().at("first_stage_model.decoder.mid.attn_1.q.weight").shape, (Shape{96, 96, 1, 1}));
  EXPECT_TRUE(file->tensors().contains("text_encoders.t5xxl.transformer.shared.weight"));
  EXPECT_FALSE(file->tensors().contains("text_encoders.t5xxl.transformer.encoder.embed_tokens.weight"));
  const auto configs = boost::json::parse(file->metadata().at(std::string(kConfigsMetadata)));
  EXPECT_EQ(configs.at("transformer").at("num_layers").as_int64(), 2);
}

TEST(CheckpointSource, gives_every_piece_of_every_layout_as_it_was) {
  const test::TemporaryFolder folder;
  const NumberedSource source;
  ASSERT_TRUE(write(source, {.layout = CheckpointLayout::kOriginal}, folder / "model.safetensors").ok());
  ASSERT_TRUE(write(source, {.layout = CheckpointLayout::kSeparateParts, .base_name = "model"}, folder / "files").ok());
  for (const char* name : {"model.safetensors", "files"}) {
    const auto opened = CheckpointSource::open(folder / name).value();
    ASSERT_EQ(opened->parts().size(), source.parts().size());
    EXPECT_TRUE(opened->scaled_weight().empty());
    for (std::size_t part = 0; part < source.parts().size(); ++part) {
      EXPECT_EQ(opened->parts()[part].part, source.parts()[part].part);
      EXPECT_EQ(opened->parts()[part].config, source.parts()[part].config);
      ASSERT_EQ(opened->parts()[part].tensors.size(), source.parts()[part].tensors.size());
      for (std::size_t i = 0; i < opened->parts()[part].tensors.size(); ++i) {
        const SourceTensor& tensor = opened->parts()[part].tensors[i];
        const std::size_t index = source.index_of(part, tensor.name);
        ASSERT_EQ(tensor.shape, source.parts()[part].tensors[index].shape) << tensor.name;
        // From inside the first half over the border into the second, where halves are swapped.
        const std::int64_t begin = tensor.shape.element_count() / 3, count = tensor.shape.element_count() / 2;
        std::vector<float> piece(static_cast<std::size_t>(count));
        ASSERT_TRUE(opened->read(part, i, begin, count, DType::kF32, reinterpret_cast<std::byte*>(piece.data())).ok());
        opened->release(part, i);
        for (std::int64_t at = 0; at < count; ++at) {
          ASSERT_EQ(piece[static_cast<std::size_t>(at)], NumberedSource::value(index, begin + at)) << tensor.name;
        }
      }
    }
  }
}

TEST(CheckpointSource, a_part_twice_and_a_file_without_the_wanted_part_are_named) {
  const test::TemporaryFolder folder;
  const ExportOptions options{.layout = CheckpointLayout::kSeparateParts, .base_name = "model"};
  ASSERT_TRUE(write(NumberedSource(), options, folder / "files").ok());
  const auto none =
      CheckpointSource::open(folder / "files", {{Part::kTextEncoder, folder / "files/model.safetensors"}});
  ASSERT_FALSE(none.ok());
  EXPECT_NE(none.status().to_string().find("holds no CLIP-L"), std::string::npos) << none.status().to_string();
  fs::copy_file(folder / "files/t5xxl.safetensors", folder / "files/t5xxl_fp16.safetensors");
  const auto twice = CheckpointSource::open(folder / "files");
  ASSERT_FALSE(twice.ok());
  EXPECT_NE(twice.status().to_string().find("a second T5"), std::string::npos) << twice.status().to_string();
}

TEST(Export, text_encoders_can_stay_out_of_the_original_file) {
  const test::TemporaryFolder folder;
  const ExportOptions options{.layout = CheckpointLayout::kOriginal, .text_encoders = false};
  ASSERT_TRUE(write(NumberedSource(), options, folder / "model.safetensors").ok());
  const auto file = opened(folder / "model.safetensors");
  for (const auto& [name, info] : file->tensors()) {
    EXPECT_FALSE(name.starts_with("text_encoders.")) << name;
  }
}

TEST(Export, separate_files_have_bare_encoder_names_and_both_t5_embeddings) {
  const test::TemporaryFolder folder;
  const ExportOptions options{.layout = CheckpointLayout::kSeparateParts, .base_name = "model"};
  ASSERT_TRUE(write(NumberedSource(), options, folder / "files").ok());
  EXPECT_TRUE(opened(folder / "files/clip_g.safetensors")->tensors().contains("text_projection.weight"));
  EXPECT_TRUE(opened(folder / "files/model.safetensors")->tensors().contains("first_stage_model.encoder.conv_in.bias"));
  const auto t5 = opened(folder / "files/t5xxl.safetensors");
  EXPECT_EQ(floats(*t5, "shared.weight"), floats(*t5, "encoder.embed_tokens.weight"));
}

class ScaledExport : public ::testing::TestWithParam<ScaledFp8> {};

TEST_P(ScaledExport, linear_layers_carry_e4m3_and_the_scale_that_restores_them) {
  const bool old = GetParam() == ScaledFp8::kOld;
  const test::TemporaryFolder folder;
  const NumberedSource source;
  const ExportOptions options{.layout = CheckpointLayout::kComfyUi, .scaled = GetParam()};
  ASSERT_TRUE(write(source, options, folder / "model.safetensors").ok());
  const auto file = opened(folder / "model.safetensors");
  std::size_t scaled = 0;
  for (const auto& [name, info] : file->tensors()) {
    if (info.dtype != "F8_E4M3" || !name.ends_with(".weight")) continue;
    ++scaled;
    EXPECT_TRUE(name.starts_with("model.diffusion_model.") || name.starts_with("text_encoders.t5xxl.")) << name;
    EXPECT_EQ(info.shape.rank(), 2) << name;
    const std::string layer = name.substr(0, name.size() - 7);
    const TensorInfo& scale = file->tensors().at(layer + (old ? ".scale_weight" : ".weight_scale"));
    EXPECT_EQ(scale.dtype, "F32");
    EXPECT_EQ(scale.offset % 4, 0u);
    EXPECT_EQ(file->tensors().contains(layer + ".comfy_quant"), !old);
  }
  // Every linear layer of two blocks, the last without the text stream's second half, of the embedders and the final
  // layer; T5's seven a layer.
  EXPECT_EQ(scaled, 10u + 7u + 7u + 2u * 7u);

  const std::string layer = "model.diffusion_model.context_embedder";
  const auto codes = floats(*file, layer + ".weight");
  const float scale = floats(*file, layer + (old ? ".scale_weight" : ".weight_scale"))[0];
  const std::size_t tensor = source.index_of(0, "context_embedder.weight");
  const float largest = NumberedSource::value(tensor, 1023);
  EXPECT_EQ(scale, largest / 448.0f);
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const float value = NumberedSource::value(tensor, static_cast<std::int64_t>(i));
    ASSERT_LE(std::fabs(codes[i] * scale - value), value / 16 * 1.0001f) << i;  // three mantissa bits, rounded
  }
  EXPECT_EQ(file->tensors().at("model.diffusion_model.context_embedder.bias").dtype, "BF16");
  EXPECT_EQ(file->tensors().at("text_encoders.t5xxl.transformer.shared.weight").dtype, "BF16");
  EXPECT_EQ(file->tensors().at("first_stage_model.decoder.mid.attn_1.q.weight").dtype, "BF16");

  if (old) {
    EXPECT_EQ(file->tensors().at("model.diffusion_model.scaled_fp8").byte_count, 0u);
    EXPECT_EQ(file->tensors().at("text_encoders.t5xxl.transformer.scaled_fp8").byte_count, 2u);
  } else {
    const auto bytes = file->bytes(file->tensors().at(layer + ".comfy_quant"));
    const auto word = boost::json::parse(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
    EXPECT_EQ(word.at("format").as_string(), "float8_e4m3fn");
  }
}

INSTANTIATE_TEST_SUITE_P(forms, ScaledExport, ::testing::Values(ScaledFp8::kOld, ScaledFp8::kNew),
                         [](const auto& form) { return form.param == ScaledFp8::kOld ? "old_form" : "new_form"; });

TEST(Export, a_weight_of_zeros_keeps_a_scale_of_one_and_nan_is_named) {
  const test::TemporaryFolder folder;
  const ExportOptions options{.layout = CheckpointLayout::kComfyUi, .scaled = ScaledFp8::kNew};
  for (const float tiny : {0.0f, 1e-44f}) {
    NumberedSource source;
    source.fill("context_embedder.weight", tiny);
    const fs::path path = folder / fmt::format("model{}.safetensors", tiny == 0.0f);
    ASSERT_TRUE(write(source, options, path).ok());
    EXPECT_EQ(floats(*opened(path), "model.diffusion_model.context_embedder.weight_scale")[0], 1.0f);
    EXPECT_EQ(floats(*opened(path), "model.diffusion_model.context_embedder.weight")[5], 0.0f);
  }
  NumberedSource source;
  source.fill("context_embedder.weight", std::numeric_limits<float>::quiet_NaN());
  const Status status = write(source, options, folder / "nan.safetensors");
  EXPECT_EQ(status.code(), ErrorCode::kDataCorruption);
  EXPECT_EQ(status.subject(), "model.diffusion_model.context_embedder.weight");
  EXPECT_EQ(entries(folder.path()), 2u);
}

TEST(Export, what_was_not_finished_leaves_nothing_behind) {
  const test::TemporaryFolder folder;
  NumberedSource broken;
  broken.fail_at("transformer_blocks.1.norm1.linear.weight");
  ExportControl stopped;
  stopped.on_progress = [](std::size_t done, std::size_t) { return done < 100'000; };
  for (const CheckpointLayout layout : {CheckpointLayout::kDiffusers, CheckpointLayout::kOriginal}) {
    EXPECT_EQ(write(broken, {.layout = layout}, folder / "model").code(), ErrorCode::kDataCorruption);
    EXPECT_EQ(entries(folder.path()), 0u);
    EXPECT_EQ(write(NumberedSource(), {.layout = layout}, folder / "model", stopped).code(), ErrorCode::kCancelled);
    EXPECT_EQ(entries(folder.path()), 0u);
  }
}

TEST(Export, refuses_to_overwrite_and_to_write_where_no_folder_is) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "model", "mine");
  for (const CheckpointLayout layout : {CheckpointLayout::kDiffusers, CheckpointLayout::kOriginal}) {
    EXPECT_EQ(write(NumberedSource(), {.layout = layout}, folder / "model").code(), ErrorCode::kFailedPrecondition);
    EXPECT_EQ(write(NumberedSource(), {.layout = layout}, folder / "no/model").code(), ErrorCode::kNotFound);
  }
  std::ostringstream kept;
  kept << std::ifstream(folder / "model").rdbuf();
  EXPECT_EQ(kept.str(), "mine");
}

TEST(Export, more_than_the_disk_holds_is_refused_before_anything_is_written) {
  const test::TemporaryFolder folder;
  std::vector<SourcePart> parts = NumberedSource().parts();
  parts[0].tensors[0].shape = Shape{1, std::int64_t{1} << 30, std::int64_t{1} << 16};
  const auto plan = plan_export(parts, {}).value();
  const Status status = export_checkpoint(NumberedSource(), plan, folder / "model", {});
  EXPECT_EQ(status.code(), ErrorCode::kResourceExhausted);
  EXPECT_NE(status.message().find("GB free"), std::string::npos) << status.message();
  EXPECT_EQ(entries(folder.path()), 0u);
}

TEST(Export, a_tensor_of_another_model_is_named) {
  std::vector<SourcePart> parts = NumberedSource().parts();
  parts[0].tensors.push_back({"controlnet_blocks.0.weight", Shape{4}, DType::kF32});
  const auto plan = plan_export(parts, {.layout = CheckpointLayout::kOriginal});
  ASSERT_FALSE(plan.ok());
  EXPECT_EQ(plan.status().subject(), "controlnet_blocks.0.weight");
}

}  // namespace
}  // namespace octavo::weights
