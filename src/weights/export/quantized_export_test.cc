#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "tensor/quantized.h"
#include "weights/export/export.h"
#include "weights/export/matrix_source.h"
#include "weights/safetensors.h"
#include "weights/test_files.h"

namespace octavo::weights {
namespace {

namespace fs = std::filesystem;

/// Values over a few decades, both signs, from the index alone.
float uneven(std::int64_t index) {
  const auto mixed = static_cast<std::uint32_t>(index) * 2654435761u;
  const float unit = static_cast<float>(mixed >> 8) / static_cast<float>(1u << 24) - 0.5f;
  return unit * std::exp2(static_cast<float>(mixed % 7));
}

ExportOptions options_for(const std::string& layer, const QuantizedLayer& how) {
  ExportOptions options;
  options.quantized[Part::kTransformer].layers[layer] = how;
  return options;
}

Status write(const TensorSource& source, const ExportOptions& options, const fs::path& out) {
  OCTAVO_ASSIGN_OR_RETURN(const ExportPlan plan, plan_export(source.parts(), options));
  return export_checkpoint(source, plan, out, {});
}

std::shared_ptr<const SafetensorsFile> transformer_of(const fs::path& out) {
  return SafetensorsFile::open(out / "transformer/diffusion_pytorch_model.safetensors").value();
}

template <typename Element>
std::vector<Element> elements(const SafetensorsFile& file, const std::string& name) {
  const auto bytes = file.bytes(file.tensors().at(name));
  std::vector<Element> all(bytes.size() / sizeof(Element));
  std::memcpy(all.data(), bytes.data(), bytes.size());
  return all;
}

std::size_t entries(const fs::path& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

struct Form {
  DType format;
  ScaleGrain grain;
};

class QuantizedExport : public ::testing::TestWithParam<Form> {};

TEST_P(QuantizedExport, codes_and_scales_are_those_of_the_shared_formula_whatever_the_portions) {
  const test::TemporaryFolder folder;
  test::MatrixSource source;
  // Longer than a portion, and with a last block of 72.
  const std::int64_t rows = 21'500, inner = 200;
  source.add("blocks.0.to_q.weight", Shape{rows, inner}, uneven, DType::kBF16);
  const QuantizedLayer how{.format = GetParam().format, .grain = GetParam().grain};
  ASSERT_TRUE(write(source, options_for("blocks.0.to_q", how), folder / "out").ok());

  const auto values = source.floats(0);
  const Shape scales = scale_shape(how.grain, rows, inner);
  std::vector<std::byte> codes(values.size());
  std::vector<float> dequant_scales(static_cast<std::size_t>(scales.element_count()));
  quantize_rows(TensorView(values.data(), DType::kF32, Shape{rows, inner}),
                {TensorView(static_cast<void*>(codes.data()), how.format, Shape{rows, inner}),
                 TensorView(static_cast<void*>(dequant_scales.data()), DType::kF32, scales), how.grain});
  const auto file = transformer_of(folder / "out");
  const TensorInfo& weight = file->tensors().at("blocks.0.to_q.weight");
  EXPECT_EQ(weight.dtype, safetensors_word(how.format));
  EXPECT_EQ(weight.shape, (Shape{rows, inner}));
  EXPECT_TRUE(elements<std::byte>(*file, "blocks.0.to_q.weight") == codes);
  EXPECT_EQ(elements<float>(*file, "blocks.0.to_q.weight_scale"), dequant_scales);
  EXPECT_EQ(file->tensors().at("blocks.0.to_q.weight_scale").shape,
            how.grain == ScaleGrain::kRow ? (Shape{rows, 1}) : scales);
}

TEST_P(QuantizedExport, zeros_and_denormals_are_stored_and_come_back) {
  const test::TemporaryFolder folder;
  test::MatrixSource source;
  const float denormal = std::numeric_limits<float>::denorm_min() * 5;
  source.add("to_q.weight", Shape{2, 4}, [denormal](std::int64_t i) { return i < 4 ? 0.0f : denormal; });
  source.add("to_k.weight", Shape{2, 4}, [](std::int64_t) { return 0.0f; });
  const QuantizedLayer how{.format = GetParam().format, .grain = GetParam().grain};
  ExportOptions options = options_for("to_q", how);
  options.quantized[Part::kTransformer].layers["to_k"] = how;
  ASSERT_TRUE(write(source, options, folder / "out").ok());
  const auto file = transformer_of(folder / "out");
  for (const char* name : {"to_q", "to_k"}) {
    for (const float scale : elements<float>(*file, name + std::string(".weight_scale"))) {
      EXPECT_TRUE(std::isnormal(scale) && scale > 0) << scale;
    }
  }
  EXPECT_EQ(elements<float>(*file, "to_k.weight_scale").front(), 1.0f);
  for (const std::byte code : elements<std::byte>(*file, "to_k.weight")) EXPECT_EQ(code, std::byte{0});
}

TEST_P(QuantizedExport, what_is_not_finite_is_named_and_leaves_nothing) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    const test::TemporaryFolder folder;
    test::MatrixSource source;
    source.add("to_q.weight", Shape{300, 260}, [bad](std::int64_t i) { return i == 270 * 260 + 259 ? bad : 1.0f; });
    const Status status =
        write(source, options_for("to_q", {.format = GetParam().format, .grain = GetParam().grain}), folder / "out");
    EXPECT_EQ(status.code(), ErrorCode::kDataCorruption);
    EXPECT_EQ(status.subject(), "to_q.weight");
    EXPECT_NE(status.message().find("row 270, column 259"), std::string::npos) << status.message();
    EXPECT_EQ(entries(folder.path()), 0u);
  }
}

TEST_P(QuantizedExport, outlier_columns_stand_apart_and_no_scale_knows_of_them) {
  const test::TemporaryFolder folder;
  test::MatrixSource source;
  const std::int64_t rows = 6, inner = 140;
  const auto value = [](std::int64_t i) {
    return i % inner == 3 || i % inner == 139 ? 1000.0f + static_cast<float>(i / inner) : uneven(i);
  };
  source.add("fc2.weight", Shape{rows, inner}, value);
  const QuantizedLayer how{.format = GetParam().format,
                           .grain = GetParam().grain,
                           .input_scale = 0.25f,
                           .input_multiplier = std::vector<float>(static_cast<std::size_t>(inner), 0.5f),
                           .outliers = {3, 139}};
  ASSERT_TRUE(write(source, options_for("fc2", how), folder / "out").ok());
  const auto file = transformer_of(folder / "out");
  EXPECT_EQ(file->tensors().at("fc2.outlier_weight").shape, (Shape{rows, 2}));
  const auto columns = elements<BFloat16>(*file, "fc2.outlier_weight");
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::size_t k = 0; k < 2; ++k) {
      EXPECT_EQ(columns[static_cast<std::size_t>(row) * 2 + k].bits,
                to_bfloat16(1000.0f + static_cast<float>(row)).bits);
    }
  }
  EXPECT_EQ(elements<std::int32_t>(*file, "fc2.outlier_index"), (std::vector<std::int32_t>{3, 139}));
  EXPECT_EQ(elements<float>(*file, "fc2.input_scale"), std::vector<float>{0.25f});
  EXPECT_EQ(elements<float>(*file, "fc2.input_multiplier"), how.input_multiplier);
  for (const float scale : elements<float>(*file, "fc2.weight_scale")) {
    EXPECT_LE(scale * largest_code(how.format), 32.0f);  // of uneven(), whose magnitude is at most 32
  }
  const auto codes = elements<std::byte>(*file, "fc2.weight");
  for (std::int64_t row = 0; row < rows; ++row) {
    EXPECT_EQ(codes[static_cast<std::size_t>(row * inner + 3)], std::byte{0});
    EXPECT_EQ(codes[static_cast<std::size_t>(row * inner + 139)], std::byte{0});
  }
}

INSTANTIATE_TEST_SUITE_P(
    forms, QuantizedExport,
    ::testing::Values(Form{DType::kE4M3, ScaleGrain::kRow}, Form{DType::kE4M3, ScaleGrain::kTensor},
                      Form{DType::kE4M3, ScaleGrain::kBlock128}, Form{DType::kE5M2, ScaleGrain::kRow},
                      Form{DType::kI8, ScaleGrain::kRow}, Form{DType::kI8, ScaleGrain::kTensor}),
    [](const auto& form) {
      return fmt::format("{}_{}", dtype_name(form.param.format), scale_grain_name(form.param.grain));
    });

TEST(QuantizedExportPlan, only_the_named_part_says_that_it_is_quantised_and_vectors_keep_their_type) {
  const test::TemporaryFolder folder;
  test::MatrixSource source;
  source.add("to_q.bias", Shape{8}, uneven);
  source.add("to_q.weight", Shape{8, 16}, uneven);
  source.add("norm1.linear.weight", Shape{8, 16}, uneven);
  source.add("half.weight", Shape{8, 16}, uneven, DType::kF16);
  ExportOptions options = options_for("to_q", {});
  options.quantized[Part::kTransformer].metadata["who"] = "me";
  ASSERT_TRUE(write(source, options, folder / "out").ok());
  const auto file = transformer_of(folder / "out");
  EXPECT_EQ(file->metadata().at("who"), "me");
  EXPECT_EQ(file->tensors().at("to_q.bias").dtype, "F32");
  EXPECT_EQ(file->tensors().at("norm1.linear.weight").dtype, "BF16");
  EXPECT_EQ(file->tensors().at("half.weight").dtype, "F16");
  options.layout = CheckpointLayout::kOriginal;
  EXPECT_EQ(plan_export(source.parts(), options).status().subject(), "--layout");
}

TEST(QuantizedExportPlan, what_belongs_to_a_weight_is_in_its_shard) {
  test::MatrixSource source;
  ExportOptions options;
  options.shard_bytes = 8 * 16 + 8 * 4;  // exactly a weight and its scales
  for (const char* layer : {"a", "b", "c"}) {
    source.add(layer + std::string(".weight"), Shape{8, 16}, uneven);
    options.quantized[Part::kTransformer].layers[layer] = {};
  }
  const ExportPlan plan = plan_export(source.parts(), options).value();
  ASSERT_EQ(plan.files.size(), 3u);
  for (const PlannedFile& file : plan.files) {
    ASSERT_EQ(file.tensors.size(), 2u);
    EXPECT_EQ(file.tensors[0].stored.name.front(), file.tensors[1].stored.name.front());
    EXPECT_EQ(file.byte_count(), options.shard_bytes);
  }
}

TEST(QuantizedExportPlan, nan_in_what_keeps_its_16_bits_is_named_too) {
  const test::TemporaryFolder folder;
  test::MatrixSource source;
  source.add("to_q.weight", Shape{8, 16}, uneven);
  source.add("norm.weight", Shape{20}, [](std::int64_t i) { return i == 17 ? std::nanf("") : 1.0f; });
  const Status status = write(source, options_for("to_q", {}), folder / "out");
  EXPECT_EQ(status.code(), ErrorCode::kDataCorruption);
  EXPECT_EQ(status.subject(), "norm.weight");
  EXPECT_NE(status.message().find("element 17"), std::string::npos) << status.message();
  EXPECT_EQ(entries(folder.path()), 0u);
}

}  // namespace
}  // namespace octavo::weights
