#include "weights/quantization/provenance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <functional>
#include <tuple>

#include "weights/export/export.h"
#include "weights/export/matrix_source.h"
#include "weights/test_files.h"

namespace octavo::weights {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

QuantizationProvenance sample() {
  QuantizationProvenance provenance;
  provenance.tool = "octavo 0.1.0";
  provenance.source = {{"hash", std::string(64, 'a')}, {"model", "large"}};
  provenance.calibration = boost::json::object{{"prompts", 64}};
  provenance.recipe = {{"format", "e4m3"}, {"activation_format", "e5m2"}, {"weights", "channel"}, {"policy", "auto"}};
  provenance.activation_format = DType::kE5M2;
  provenance.activations = ActivationForm::kStatic;
  provenance.exceptions = {{"b", ActivationForm::kNone}};
  provenance.layers_hash = std::string(64, 'b');
  return provenance;
}

/// A file of two layers, a with a static input and outliers, b weight-only, as the writer makes them.
class Part {
 public:
  Part() {
    write(folder_ / "good", provenance_text(sample()));
    file_ = folder_ / "good/transformer/diffusion_pytorch_model.safetensors";
  }
  void write(const fs::path& out, const std::string& text) const {
    test::MatrixSource source;
    for (const char* name : {"a.weight", "b.weight"}) {
      source.add(name, Shape{4, 130}, [](std::int64_t i) { return static_cast<float>(i % 7) - 3; });
    }
    source.add("norm.weight", Shape{4}, [](std::int64_t) { return 1.0f; });
    ExportOptions options;
    auto& quantized = options.quantized[weights::Part::kTransformer];
    quantized.layers["a"] = {.grain = ScaleGrain::kBlock128,
                             .input_scale = 0.5f,
                             .input_multiplier = std::vector<float>(130, 2.0f),
                             .outliers = {1, 129}};
    quantized.layers["b"] = {};
    if (!text.empty()) quantized.metadata[std::string(kProvenanceMetadata)] = text;
    const auto plan = plan_export(source.parts(), options).value();
    const Status status = export_checkpoint(source, plan, out, {});
    OCTAVO_CHECK(status.ok(), "{}", status.to_string());
  }
  /// The file's tensors changed by `change`, read again.
  template <typename Change>
  Status changed(const Change& change) const {
    const auto file = SafetensorsFile::open(file_).value();
    std::map<std::string, TensorView> tensors;
    for (const auto& [name, info] : file->tensors()) tensors[name] = file->view(info).value();
    change(tensors);
    std::vector<NamedTensor> list;
    for (const auto& [name, view] : tensors) list.push_back({name, view});
    std::map<std::string, std::string> metadata(file->metadata().begin(), file->metadata().end());
    const fs::path path = folder_ / "changed.safetensors";
    OCTAVO_CHECK(write_safetensors(path, list, metadata).ok(), "cannot write {}", path.string());
    return read_provenance({SafetensorsFile::open(path).value()}).status();
  }
  std::shared_ptr<const SafetensorsFile> open(const std::string& name) const {
    return SafetensorsFile::open(folder_ / name / "transformer/diffusion_pytorch_model.safetensors").value();
  }
  fs::path operator/(const std::string& name) const { return folder_ / name; }

 private:
  test::TemporaryFolder folder_;
  fs::path file_;
};

TEST(Provenance, comes_back_from_its_text) {
  const auto read = parse_provenance(provenance_text(sample()), "file");
  ASSERT_TRUE(read.ok()) << read.status().to_string();
  EXPECT_EQ(read->tool, "octavo 0.1.0");
  EXPECT_EQ(read->source.at("model").as_string(), "large");
  EXPECT_EQ(read->calibration->at("prompts").as_int64(), 64);
  EXPECT_EQ(read->activation_format, DType::kE5M2);
  EXPECT_EQ(read->activations_of("a"), ActivationForm::kStatic);
  EXPECT_EQ(read->activations_of("b"), ActivationForm::kNone);
  EXPECT_EQ(provenance_text(*read), provenance_text(sample()));
}

TEST(Provenance, what_is_not_its_text_is_named) {
  for (const auto& [from, to, word] :
       {std::tuple("\"tool\"", "\"spool\"", "tool"), std::tuple("\"static\"", "\"statistic\"", "activations_default"),
        std::tuple("\"e5m2\"", "\"e5m3\"", "activation_format"), std::tuple("\"none\"", "7", "activation_exceptions"),
        std::tuple("{\"prompts\":64}", "64", "calibration"), std::tuple("octavo 0.1.0", "octavo\\u001b[2J", "control"),
        std::tuple("{\"format_version\"", "[\"format_version\"", "JSON")}) {
    std::string text = provenance_text(sample());
    const auto at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    text.replace(at, std::string(from).size(), to);
    const auto read = parse_provenance(text, "some.safetensors");
    ASSERT_FALSE(read.ok()) << text;
    EXPECT_EQ(read.status().subject(), "some.safetensors");
    EXPECT_THAT(read.status().message(), HasSubstr(word));
  }
  std::string newer = provenance_text(sample());
  newer.replace(newer.find("\"format_version\":1"), 18, "\"format_version\":2");
  const auto read = parse_provenance(newer, "some.safetensors");
  EXPECT_EQ(read.status().code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(read.status().message(), HasSubstr("format_version 2"));
}

TEST(Provenance, of_a_written_part_is_read_and_of_a_plain_one_is_absent) {
  const Part part;
  const auto read = read_provenance({part.open("good")});
  ASSERT_TRUE(read.ok()) << read.status().to_string();
  ASSERT_TRUE(read->has_value());
  EXPECT_EQ((*read)->layers_hash, std::string(64, 'b'));
  test::write_f32(part / "plain.safetensors", {"x"});
  const auto plain = read_provenance({SafetensorsFile::open(part / "plain.safetensors").value()});
  ASSERT_TRUE(plain.ok());
  EXPECT_FALSE(plain->has_value());
}

TEST(Provenance, files_of_two_runs_are_refused_by_name) {
  const Part part;
  auto other = sample();
  other.source["hash"] = std::string(64, 'c');
  part.write(part / "other", provenance_text(other));
  const Status mixed = read_provenance({part.open("good"), part.open("other")}).status();
  EXPECT_EQ(mixed.code(), ErrorCode::kDataCorruption);
  EXPECT_THAT(mixed.subject(), HasSubstr("other/transformer"));
  EXPECT_THAT(mixed.message(), HasSubstr("another quantisation"));

  test::write_f32(part / "plain.safetensors", {"x"});
  const Status half =
      read_provenance({part.open("good"), SafetensorsFile::open(part / "plain.safetensors").value()}).status();
  EXPECT_THAT(half.to_string(), HasSubstr("plain.safetensors: is not quantised"));
}

TEST(Provenance, codes_without_what_belongs_to_them_are_named) {
  const Part part;
  const float negative[4] = {1, -1, 1, 1};
  const std::int32_t descending[2] = {129, 1};
  using Tensors = std::map<std::string, TensorView>;
  const std::vector<std::pair<std::function<void(Tensors&)>, std::string>> changes = {
      {[](Tensors& tensors) { tensors.erase("b.weight_scale"); }, "b.weight has no weight_scale"},
      {[](Tensors& tensors) { tensors.erase("a.input_scale"); }, "a.weight has no input_scale"},
      {[](Tensors& tensors) { tensors.erase("a.outlier_index"); }, "a.weight has one of outlier_index"},
      {[](Tensors& tensors) { tensors.erase("a.weight"); }, "belongs to no 8-bit weight"},
      {[](Tensors& tensors) { tensors["b.weight_scale"] = tensors.at("b.weight_scale").slice(0, 0, 3); },
       "b.weight_scale is F32 [3, 1]"},
      {[](Tensors& tensors) { tensors["b.input_scale"] = tensors.at("a.input_scale"); },
       "b.input_scale belongs to a layer whose input is not static"},
      {[](Tensors& tensors) { tensors["a.input_multiplier"] = tensors.at("a.input_multiplier").slice(0, 0, 9); },
       "a.input_multiplier is F32 [9]"},
      {[&](Tensors& tensors) {
         tensors["b.weight_scale"] = TensorView(negative, DType::kF32, Shape{4, 1});
       },
       "b.weight_scale holds -1 at element 1"},
      {[&](Tensors& tensors) { tensors["a.outlier_index"] = TensorView(descending, DType::kI32, Shape{2}); },
       "a.outlier_index holds 1 behind 129"},
      {[](Tensors& tensors) {
         tensors.erase("b.weight");
         tensors.erase("b.weight_scale");
       },
       "b is said to be quantised"},
  };
  for (const auto& [change, words] : changes) {
    const Status status = part.changed(change);
    EXPECT_EQ(status.code(), ErrorCode::kDataCorruption) << words;
    EXPECT_THAT(status.to_string(), HasSubstr(words));
    EXPECT_THAT(status.to_string(), HasSubstr("changed.safetensors"));
  }
}

}  // namespace
}  // namespace octavo::weights
