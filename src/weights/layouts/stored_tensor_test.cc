// Files of the original layout and of ComfyUI's FP8 forms, taken through a store.
#include "weights/layouts/stored_tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/sha256.h"
#include "tensor/float8.h"
#include "weights/layouts/part_tensors.h"
#include "weights/test_files.h"
#include "weights/weight_store.h"

namespace octavo::weights {
namespace {

using test::TemporaryFolder;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

/// One tensor to write, its bytes given.
struct Raw {
  std::string name;
  std::string dtype;
  Shape shape;
  std::string bytes;
};

template <typename T>
std::string bytes_of(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

/// A file of any dtypes, which the writer of the library does not make.
std::shared_ptr<const SafetensorsFile> write(const std::filesystem::path& path, const std::vector<Raw>& tensors,
                                             const boost::json::object& metadata = {}) {
  boost::json::object header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::string data;
  for (const Raw& one : tensors) {
    boost::json::array shape;
    for (int axis = 0; axis < one.shape.rank(); ++axis) shape.emplace_back(one.shape[axis]);
    header[one.name] = {
        {"dtype", one.dtype}, {"shape", shape}, {"data_offsets", {data.size(), data.size() + one.bytes.size()}}};
    data += one.bytes;
  }
  std::string text = boost::json::serialize(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');  // values lie where they can be read without a copy
  test::write_text(path, test::file_bytes(text, 0) + data);
  auto file = SafetensorsFile::open(path);
  OCTAVO_CHECK(file.ok(), "{}", file.status().to_string());
  return *file;
}

WeightStore open(Part part, Layout layout, const std::shared_ptr<const SafetensorsFile>& file,
                 const std::string& prefix = "") {
  auto sources = map_part(part, layout, prefix, {file});
  OCTAVO_CHECK(sources.ok(), "{}", sources.status().to_string());
  return WeightStore::open("part", {file}, std::move(*sources));
}

std::string refusal(Part part, const std::shared_ptr<const SafetensorsFile>& file) {
  return map_part(part, Layout::kDiffusers, "", {file}).status().to_string();
}

/// As tools/reference/record_key_tables.py makes them.
std::vector<float> recipe(const std::string& name, const Shape& shape) {
  std::uint64_t state = 0xCBF29CE484222325ull;
  for (const char c : name) state = (state ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
  std::vector<float> values(static_cast<std::size_t>(shape.element_count()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>((state + i * 2654435761u) >> 8 & 0xFFFFu) / 65536.0f;
  }
  return values;
}

TEST(OriginalLayout, values_equal_what_diffusers_converters_make) {
  std::ifstream recording(std::string(OCTAVO_SOURCE_DIR) + "/tests/parity/fixtures/key_tables.json");
  std::stringstream text;
  text << recording.rdbuf();
  const auto conversions = boost::json::parse(text.str()).at("conversions");
  const struct {
    Part part;
    std::vector<TensorShape> table;
    NameSizes sizes;
  } cases[] = {
      {Part::kTransformer,
       transformer_tensors(
           {.blocks = 3, .width = 64, .position_side = 4, .dual_blocks = 2, .context_width = 16, .pooled_width = 8}),
       {.blocks = 3}},
      {Part::kVae, vae_tensors({.channels = {4, 8, 8}, .layers_per_block = 1}), {.vae_levels = 3}}};
  for (const auto& one : cases) {
    const auto& recorded = conversions.at(names_of(one.part).folder).as_object();
    const TemporaryFolder folder;
    std::vector<Raw> tensors;
    for (const TensorShape& tensor : in_original_layout(one.part, one.table, one.sizes)) {
      tensors.push_back({"p." + tensor.name, "F32", tensor.shape, bytes_of(recipe(tensor.name, tensor.shape))});
    }
    WeightStore store = open(one.part, Layout::kOriginal, write(folder / "file.safetensors", tensors), "p.");
    EXPECT_EQ(recorded.size(), one.table.size());
    for (const TensorShape& tensor : one.table) {
      const TensorView view = store.require(tensor.name, tensor.shape);
      ASSERT_TRUE(view.defined() && view.contiguous()) << tensor.name;
      const std::span bytes(static_cast<const std::byte*>(view.data()), view.byte_count());
      EXPECT_EQ(sha256_hex(bytes).substr(0, 16), recorded.at(tensor.name).as_string()) << tensor.name;
    }
    EXPECT_TRUE(store.finish().ok());
  }
}

TEST(OriginalLayout, rows_are_views_of_the_file_and_problems_have_the_files_names) {
  const TemporaryFolder folder;
  const std::string at = "m.joint_blocks.0.x_block.";
  const auto file = write(folder / "file.safetensors", {{at + "attn.qkv.weight", "F32", {6, 2}, std::string(48, '\0')},
                                                        {at + "attn.qkv.bias", "F32", {7}, std::string(28, '\0')},
                                                        {at + "attn.proj.weight", "F32", {2, 3}, std::string(24, '\0')},
                                                        {"m.pos_embeds", "F32", {1}, std::string(4, '\0')},
                                                        {"other.x", "F32", {1}, std::string(4, '\0')}});
  WeightStore store = open(Part::kTransformer, Layout::kOriginal, file, "m.");
  const auto* stored = static_cast<const char*>(store.require("transformer_blocks.0.attn.to_q.weight", {2, 2}).data());
  EXPECT_EQ(static_cast<const char*>(store.require("transformer_blocks.0.attn.to_v.weight", {2, 2}).data()),
            stored + 32);
  store.require("transformer_blocks.0.attn.to_k.weight", {2, 2});
  for (const char* name : {"to_q", "to_k", "to_v"}) {
    store.require(std::string("transformer_blocks.0.attn.") + name + ".bias", {2});
    store.require(std::string("transformer_blocks.0.attn2.") + name + ".weight", {2, 2});
  }
  store.require("transformer_blocks.0.attn.to_out.0.weight", {2, 2});
  EXPECT_THAT(store.finish().message(),
              AllOf(HasSubstr("1 missing: " + at + "attn2.qkv.weight [6, 2]"),
                    HasSubstr(at + "attn.qkv.bias is [7], expected [6]"),
                    HasSubstr(at + "attn.proj.weight is [2, 3], expected [2, 2]"),
                    HasSubstr("1 not part of this model: m.pos_embeds"), Not(HasSubstr("other.x"))));
}

TEST(Fp8, every_code_is_exact_in_bf16) {
  std::string codes(256, '\0');
  for (int code = 0; code < 256; ++code) codes[static_cast<std::size_t>(code)] = static_cast<char>(code);
  const TemporaryFolder folder;
  const auto file = write(folder / "file.safetensors",
                          {{"a.weight", "F8_E4M3", {256}, codes}, {"b.weight", "F8_E5M2", {256}, codes}});
  WeightStore store = open(Part::kTextEncoder, Layout::kDiffusers, file);
  EXPECT_EQ(store.quantization(), "FP8");
  for (const auto& [name, table] : {std::pair("a.weight", &kE4M3Values), std::pair("b.weight", &kE5M2Values)}) {
    const TensorView view = store.require(name, {256});
    ASSERT_EQ(view.dtype(), DType::kBF16);
    for (std::size_t i = 0; i < 256; ++i) {
      const float value = to_float(view.as<BFloat16>()[i]);
      EXPECT_TRUE(value == (*table)[i] || (std::isnan(value) && std::isnan((*table)[i]))) << name << " code " << i;
    }
  }
  EXPECT_THAT(store.finish().message(), HasSubstr("a.weight holds NaN"));
}

TEST(Fp8, scales_multiply_in_f32_and_round_once) {
  const float scale = 0.0123f;
  const std::string codes = {0x01, 0x38, 0x7E, static_cast<char>(0xB5)};
  const std::string scale_bytes = bytes_of(std::vector{scale});
  const TemporaryFolder folder;
  const std::string json = R"({"format": "float8_e4m3fn"})";
  const auto length = static_cast<std::int64_t>(json.size());
  const std::vector<std::pair<std::string, std::shared_ptr<const SafetensorsFile>>> forms = {
      {"old", write(folder / "old", {{"l.weight", "F8_E4M3", {2, 2}, codes},
                                     {"l.scale_weight", "F32", {1}, scale_bytes},
                                     {"l.scale_input", "F32", {}, scale_bytes},
                                     {"scaled_fp8", "F8_E4M3", {0}, ""}})},
      {"new", write(folder / "new", {{"l.weight", "F8_E4M3", {2, 2}, codes},
                                     {"l.weight_scale", "F32", {}, scale_bytes},
                                     {"l.comfy_quant", "U8", {length}, json}})},
      {"bytes", write(folder / "bytes", {{"l.weight", "U8", {2, 2}, codes}, {"l.weight_scale", "F32", {}, scale_bytes}},
                      {{"_quantization_metadata", R"({"layers": {"l": {"format": "float8_e4m3fn"}}})"}})}};
  for (const auto& [form, file] : forms) {
    SCOPED_TRACE(form);
    WeightStore store = open(Part::kTextEncoder, Layout::kDiffusers, file);
    EXPECT_EQ(store.quantization(), "scaled FP8");
    const TensorView view = store.require("l.weight", {2, 2});
    ASSERT_EQ(view.dtype(), DType::kBF16);
    for (std::size_t i = 0; i < 4; ++i) {
      const float exact = kE4M3Values[static_cast<std::uint8_t>(codes[i])] * scale;
      EXPECT_EQ(view.as<BFloat16>()[i].bits, to_bfloat16(exact).bits);
    }
    EXPECT_TRUE(store.finish().ok());
  }
}

TEST(Fp8, nan_codes_of_the_t5_table_are_zeros) {
  const TemporaryFolder folder;
  const auto file = write(folder / "t5", {{"shared.weight", "F8_E4M3", {2}, {0x7F, 0x38}}});
  WeightStore store = open(Part::kTextEncoder3, Layout::kDiffusers, file);
  const TensorView view = store.require("shared.weight", {2});
  EXPECT_EQ(to_float(view.as<BFloat16>()[0]), 0.0f);
  EXPECT_EQ(to_float(view.as<BFloat16>()[1]), 1.0f);
  EXPECT_TRUE(store.finish().ok());
}

TEST(Fp8, what_is_not_read_is_named) {
  const TemporaryFolder folder;
  const std::string one = bytes_of(std::vector{1.0f}), two = bytes_of(std::vector{1.0f, 1.0f});
  const Raw weight{"l.weight", "F8_E4M3", {2}, "ab"};
  const Raw scale{"l.weight_scale", "F32", {}, one};
  EXPECT_THAT(refusal(Part::kVae, write(folder / "a", {weight, {"l.weight_scale", "F32", {2}, two}})),
              AllOf(HasSubstr("l.weight_scale is [2]"), HasSubstr("16-bit")));
  EXPECT_THAT(refusal(Part::kVae, write(folder / "b", {weight, {"l.weight_scale", "I32", {}, one}})), HasSubstr("I32"));
  EXPECT_THAT(refusal(Part::kVae, write(folder / "c",
                                        {weight, {"l.scale_weight", "F32", {}, bytes_of(std::vector{std::nanf("")})}})),
              HasSubstr("no scale"));
  EXPECT_THAT(refusal(Part::kVae, write(folder / "d", {weight, scale, {"l.scale_weight", "F32", {}, one}})),
              HasSubstr("l has two scales"));
  EXPECT_THAT(refusal(Part::kVae, write(folder / "e", {scale})), HasSubstr("which has no weight"));
  EXPECT_THAT(refusal(Part::kVae, write(folder / "f", {{"l.weight", "F16", {1}, "ab"}, scale})),
              HasSubstr("scales belong to FP8"));
  const auto quantised = [&](const std::string& name, const std::string& json) {
    const Raw tensor{"l.comfy_quant", "U8", {static_cast<std::int64_t>(json.size())}, json};
    return refusal(Part::kVae, write(folder / name, {weight, tensor}));
  };
  EXPECT_THAT(quantised("g", R"({"format": "nvfp4"})"),
              AllOf(HasSubstr("l is stored as nvfp4"), HasSubstr("fp8_scaled")));
  EXPECT_THAT(quantised("h", R"({"form": 1})"), HasSubstr("names no format"));
  EXPECT_THAT(quantised("i", "{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal(Part::kVae, write(folder / "j", {weight}, {{"_quantization_metadata", "[]"}})),
              HasSubstr("has no layers"));
}

/// A quantised part of one layer "a" [2, 3]; `tool` tells runs apart.
std::shared_ptr<const SafetensorsFile> write_codes(const std::filesystem::path& path, const std::string& tool,
                                                   const std::string& layer, std::uint8_t first_code = 0x38) {
  QuantizationProvenance provenance{.tool = tool, .layers_hash = "0"};
  provenance.recipe = {{"activation_format", "e4m3"}};
  const std::vector<std::uint8_t> codes = {first_code, 0x40, 0xB8, 0x00, 0x30, 0x7E};
  return write(path,
               {{layer + ".weight", "F8_E4M3", Shape{2, 3}, bytes_of(codes)},
                {layer + ".weight_scale", "F32", Shape{2, 1}, bytes_of<float>({0.5f, 2.0f})}},
               {{kProvenanceMetadata, provenance_text(provenance)}});
}

TEST(QuantizedPart, codes_are_taken_as_they_lie_or_widened) {
  const TemporaryFolder folder;
  const auto file = write_codes(folder / "a.safetensors", "one", "a");
  for (const bool widened : {false, true}) {
    WeightStore store = open(Part::kTransformer, Layout::kDiffusers, file);
    ASSERT_TRUE(store.provenance().has_value());
    EXPECT_TRUE(store.is_quantized("a"));
    EXPECT_FALSE(store.is_quantized("b"));
    EXPECT_THAT(store.names(), ::testing::ElementsAre("a.weight"));  // scales are no tensors of the model
    const std::vector<float> expected = {0.5f, 1.0f, -0.5f, 0.0f, 1.0f, 896.0f};
    if (widened) {
      const TensorView weight = store.require("a.weight", Shape{2, 3});
      for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(to_float(weight.as<BFloat16>()[i]), expected[i]);
    } else {
      const auto codes = store.require_quantized("a", Shape{2, 3});
      ASSERT_TRUE(codes.has_value());
      EXPECT_EQ(codes->weight.grain, ScaleGrain::kRow);
      EXPECT_EQ(codes->weight.codes.data(), file->bytes(file->tensors().at("a.weight")).data());
      std::vector<float> values(6);
      dequantize_rows(codes->weight, TensorView(values.data(), DType::kF32, Shape{2, 3}));
      EXPECT_EQ(values, expected);
    }
    EXPECT_TRUE(store.finish().ok());
  }
}

TEST(QuantizedPart, wrong_shapes_and_codes_that_are_no_number_are_named) {
  const TemporaryFolder folder;
  WeightStore store = open(Part::kTransformer, Layout::kDiffusers, write_codes(folder / "a.safetensors", "one", "a"));
  EXPECT_FALSE(store.require_quantized("a", Shape{3, 3}).has_value());
  EXPECT_THAT(store.finish().to_string(), AllOf(HasSubstr("a.weight"), HasSubstr("[2, 3]"), HasSubstr("[3, 3]")));
  const auto nan = write_codes(folder / "nan.safetensors", "one", "a", 0xFF);
  WeightStore with_nan = open(Part::kTransformer, Layout::kDiffusers, nan);
  EXPECT_TRUE(with_nan.require_quantized("a", Shape{2, 3}).has_value());
  EXPECT_THAT(with_nan.finish().to_string(), AllOf(HasSubstr("a.weight"), HasSubstr("NaN"), HasSubstr("element 0")));
}

TEST(QuantizedPart, files_of_two_runs_and_other_layouts_are_refused) {
  const TemporaryFolder folder;
  const auto one = write_codes(folder / "one.safetensors", "one", "a");
  const auto other = write_codes(folder / "other.safetensors", "other", "b");
  EXPECT_THAT(map_part(Part::kTransformer, Layout::kDiffusers, "", {one, other}).status().to_string(),
              AllOf(HasSubstr("other.safetensors"), HasSubstr("one.safetensors")));
  EXPECT_EQ(map_part(Part::kTransformer, Layout::kOriginal, "", {one}).status().code(), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace octavo::weights
