// Linear's forms against the formula in double: every way in which a quantised part can hold a layer, joined layers,
// and weights quantised at load.
#include "layers/linear.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "testing/quantized_formula.h"
#include "weights/test_files.h"

namespace octavo::layers {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using weights::ActivationForm;
using weights::WeightStore;
using weights::test::TemporaryFolder;

constexpr std::int64_t kRows = 7, kWidth = 24, kInner = 300;

std::vector<float> random_values(std::int64_t count, unsigned seed, float spread = 1.0f) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(engine);
  return values;
}

/// One layer of a quantised part, as its writer makes it.
struct Layer {
  std::string name;
  DType format = DType::kE4M3;
  ScaleGrain grain = ScaleGrain::kRow;
  float input_scale = 0.0f;  // 0 = none
  bool multiplier = false;
  std::vector<std::int32_t> outliers = {};
  unsigned seed = 1;
  std::int64_t width = kWidth;

  void make() {
    std::vector<float> weight = random_values(width * kInner, seed, 0.05f);
    std::vector<BFloat16> kept;
    for (std::int64_t row = 0; row < width; ++row) {
      for (const std::int32_t column : outliers) {
        float& value = weight[static_cast<std::size_t>(row * kInner + column)];
        kept.push_back(to_bfloat16(value));
        value = 0.0f;
      }
    }
    outlier_weight = std::move(kept);
    codes.resize(static_cast<std::size_t>(width * kInner));
    const Shape scale = scale_shape(grain, width, kInner);
    scales.resize(static_cast<std::size_t>(scale.element_count()));
    quantized = {TensorView(codes.data(), format, Shape{width, kInner}), TensorView(scales.data(), DType::kF32, scale),
                 grain};
    quantize_rows(TensorView(weight.data(), DType::kF32, Shape{width, kInner}), quantized);
    bias = random_values(width, seed + 100);
    if (multiplier) {
      multipliers = random_values(kInner, 77, 0.2f);
      for (float& value : multipliers) value = std::exp2(value);
    }
  }
  void add_to(std::vector<weights::NamedTensor>& file) const {
    file.push_back({name + ".weight", quantized.codes});
    Shape stored = quantized.dequant_scale.shape();
    if (grain == ScaleGrain::kRow) stored = Shape{width, 1};
    file.push_back({name + ".weight_scale", TensorView(scales.data(), DType::kF32, stored)});
    file.push_back({name + ".bias", TensorView(bias.data(), DType::kF32, Shape{width})});
    if (input_scale > 0) file.push_back({name + ".input_scale", TensorView(&input_scale, DType::kF32, Shape{1})});
    if (multiplier) {
      file.push_back({name + ".input_multiplier", TensorView(multipliers.data(), DType::kF32, Shape{kInner})});
    }
    const auto count = static_cast<std::int64_t>(outliers.size());
    if (count > 0) {
      file.push_back({name + ".outlier_index", TensorView(outliers.data(), DType::kI32, Shape{count})});
      file.push_back({name + ".outlier_weight", TensorView(outlier_weight.data(), DType::kBF16, Shape{width, count})});
    }
  }

  std::vector<std::byte> codes;
  std::vector<float> scales, bias, multipliers;
  std::vector<BFloat16> outlier_weight;
  QuantizedView quantized;
};

class LinearForms : public ::testing::Test {
 protected:
  WeightStore open_file() const {
    const auto file = weights::SafetensorsFile::open(folder_ / "weights.safetensors").value();
    auto sources = weights::map_part(weights::Part::kTransformer, weights::Layout::kDiffusers, "", {file});
    OCTAVO_CHECK(sources.ok(), "{}", sources.status().to_string());
    return WeightStore::open("transformer", {file}, std::move(*sources));
  }
  WeightStore write(const std::vector<weights::NamedTensor>& tensors, ActivationForm form, DType activation_format) {
    weights::QuantizationProvenance provenance{.tool = "test", .layers_hash = "0"};
    provenance.activations = form;
    provenance.activation_format = activation_format;
    const char* word = activation_format == DType::kE4M3 ? "e4m3" : activation_format == DType::kE5M2 ? "e5m2" : "int8";
    provenance.recipe = {{"activation_format", word}};
    const Status written =
        weights::write_safetensors(folder_ / "weights.safetensors", tensors,
                                   {{std::string(weights::kProvenanceMetadata), provenance_text(provenance)}});
    OCTAVO_CHECK(written.ok(), "{}", written.to_string());
    return open_file();
  }
  WeightStore write_quantized(std::vector<Layer>& layers, ActivationForm form, DType activation_format) {
    std::vector<weights::NamedTensor> tensors;
    for (Layer& layer : layers) {
      layer.make();
      layer.add_to(tensors);
    }
    return write(tensors, form, activation_format);
  }
  WeightStore write_plain(const std::string& name, const std::vector<float>& weight, const std::vector<float>& bias) {
    const Status written = weights::write_safetensors(
        folder_ / "weights.safetensors",
        std::vector<weights::NamedTensor>{
            {name + ".weight", TensorView(weight.data(), DType::kF32, Shape{kWidth, kInner})},
            {name + ".bias", TensorView(bias.data(), DType::kF32, Shape{kWidth})}});
    OCTAVO_CHECK(written.ok(), "{}", written.to_string());
    return open_file();
  }

  std::vector<float> forward(const Linear& linear, const std::vector<float>& x) {
    device::Arena arena;
    std::vector<float> out(static_cast<std::size_t>(kRows * linear.out_features()));
    const TensorView in(x.data(), DType::kF32, Shape{kRows, kInner});
    const TensorView to(out.data(), DType::kF32, Shape{kRows, linear.out_features()});
    ops::ExecutionContext context(*device_, *stream_, arena);
    arena.set_measuring(true);
    linear.forward(context, in, to);
    const std::size_t bytes = arena.peak_bytes();
    arena.set_measuring(false);
    OCTAVO_CHECK(arena.reserve(*device_, bytes).ok(), "no memory");
    linear.forward(context, in, to);
    return out;
  }

  /// Of a product's size, because sums cancel: 1e-6 of the root mean square is some ulps of f32 for each addition.
  static void expect_formula(const std::vector<float>& actual, const std::vector<double>& expected,
                             const std::string& what) {
    ASSERT_EQ(actual.size(), expected.size());
    double square = 0;
    for (const double value : expected) square += value * value;
    const double size = std::sqrt(square / static_cast<double>(expected.size()));
    for (std::size_t i = 0; i < actual.size(); ++i)
      ASSERT_NEAR(actual[i], expected[i], 4e-6 * size) << what << ' ' << i;
  }
  static std::vector<double> with_bias(std::vector<double> product, const std::vector<float>& bias) {
    for (std::size_t i = 0; i < product.size(); ++i) product[i] += bias[i % bias.size()];
    return product;
  }

  TemporaryFolder folder_;
  std::unique_ptr<device::Device> device_ = device::create_cpu_device(1);
  std::unique_ptr<device::Stream> stream_ = device_->create_stream();
  const std::vector<float> x_ = random_values(kRows * kInner, 9, 2.0f);
  const TensorView x_view_{x_.data(), DType::kF32, Shape{kRows, kInner}};
};

TEST_F(LinearForms, every_form_equals_the_formula) {
  struct Form {
    ActivationForm form;
    ScaleGrain grain;
    float scale;
  };
  const Form forms[] = {{ActivationForm::kToken, ScaleGrain::kRow, 0},
                        {ActivationForm::kBlock, ScaleGrain::kBlock128, 0},
                        {ActivationForm::kStatic, ScaleGrain::kTensor, 0.01f},
                        {ActivationForm::kNone, ScaleGrain::kRow, 0}};
  for (const DType format : {DType::kE4M3, DType::kE5M2, DType::kI8}) {
    for (const DType input : {DType::kE4M3, DType::kE5M2, DType::kI8}) {
      for (const ScaleGrain grain : {ScaleGrain::kTensor, ScaleGrain::kRow, ScaleGrain::kBlock128}) {
        for (const Form& form : forms) {
          for (const bool split : {false, true}) {
            if (split && form.form == ActivationForm::kNone) continue;  // widened: the test below
            std::vector<Layer> layers(1);
            layers[0] = {.name = "a", .format = format, .grain = grain, .input_scale = form.scale, .multiplier = split};
            if (split) layers[0].outliers = {3, 128, 299};
            WeightStore store = write_quantized(layers, form.form, input);
            LoadContext load{*device_, store, DType::kF32};
            const Linear linear = Linear::load(load, "a", kInner, kWidth, true);
            ASSERT_TRUE(store.finish().ok() && load.status.ok()) << load.status.to_string();
            ASSERT_NE(linear.quantized(), nullptr);
            EXPECT_EQ(linear.quantized()->quantizes_input(), form.form != ActivationForm::kNone);
            testing::QuantizedFormula formula{.weight = layers[0].quantized, .input_grain = form.grain};
            if (form.form != ActivationForm::kNone) formula.input_format = input;
            if (form.scale > 0) formula.static_scale = form.scale;
            formula.multiplier = layers[0].multipliers;
            formula.outliers = layers[0].outliers;
            formula.outlier_weight = TensorView(layers[0].outlier_weight.data(), DType::kBF16,
                                                Shape{kWidth, static_cast<std::int64_t>(layers[0].outliers.size())});
            expect_formula(forward(linear, x_), with_bias(formula.product(x_view_), layers[0].bias),
                           fmt::format("{} by {}, {}", dtype_name(format), dtype_name(input), scale_grain_name(grain)));
          }
        }
      }
    }
  }
}

TEST_F(LinearForms, layers_of_one_input_join_and_their_tensor_scales_become_scales_of_rows) {
  for (const ScaleGrain grain : {ScaleGrain::kTensor, ScaleGrain::kRow, ScaleGrain::kBlock128}) {
    std::vector<Layer> layers(3);
    for (unsigned i = 0; i < 3; ++i) {
      layers[i] = {
          .name = std::string(1, "qkv"[i]), .grain = grain, .multiplier = true, .outliers = {0, 200}, .seed = 1 + i};
    }
    WeightStore store = write_quantized(layers, ActivationForm::kToken, DType::kE4M3);
    LoadContext load{*device_, store, DType::kF32};
    const std::vector<std::string> names = {"q", "k", "v"};
    const Linear linear = Linear::load_joined(load, names, kInner, kWidth, true);
    ASSERT_TRUE(store.finish().ok() && load.status.ok()) << load.status.to_string();
    EXPECT_EQ(load.forms.w8a8, 3);
    const std::vector<float> out = forward(linear, x_);
    for (std::size_t i = 0; i < 3; ++i) {
      const testing::QuantizedFormula formula{
          .weight = layers[i].quantized,
          .input_format = DType::kE4M3,
          .multiplier = layers[i].multipliers,
          .outliers = layers[i].outliers,
          .outlier_weight = TensorView(layers[i].outlier_weight.data(), DType::kBF16, Shape{kWidth, 2})};
      std::vector<float> own;
      for (std::size_t row = 0; row < kRows; ++row) {
        const auto* from = out.data() + (row * 3 + i) * kWidth;
        own.insert(own.end(), from, from + kWidth);
      }
      expect_formula(own, with_bias(formula.product(x_view_), layers[i].bias), names[i]);
    }
  }
}

TEST_F(LinearForms, layers_of_one_input_that_are_not_quantised_alike_are_refused_by_name) {
  const auto refusal = [&](Layer first, Layer second, ActivationForm form) {
    first.name = "q";
    second.name = "k";
    std::vector<Layer> layers = {std::move(first), std::move(second)};
    WeightStore store = write_quantized(layers, form, DType::kE4M3);
    LoadContext load{*device_, store, DType::kF32};
    const std::vector<std::string> names = {"q", "k"};
    Linear::load_joined(load, names, kInner, kWidth, true);
    EXPECT_EQ(load.status.code(), ErrorCode::kDataCorruption);
    return load.status.to_string();
  };
  EXPECT_THAT(refusal({.input_scale = 0.01f}, {.input_scale = 0.02f}, ActivationForm::kStatic),
              AllOf(HasSubstr("q and k"), HasSubstr("scales of their input")));
  EXPECT_THAT(refusal({.outliers = {1}}, {.outliers = {2}}, ActivationForm::kToken), HasSubstr("split channels"));
  EXPECT_THAT(refusal({.multiplier = true}, {}, ActivationForm::kToken), HasSubstr("multipliers"));
  EXPECT_THAT(refusal({.format = DType::kE5M2}, {}, ActivationForm::kToken), HasSubstr("formats"));
  EXPECT_THAT(refusal({.grain = ScaleGrain::kBlock128}, {}, ActivationForm::kToken), HasSubstr("grains"));
}

TEST_F(LinearForms, where_only_some_layers_of_one_input_are_codes_all_are_widened) {
  std::vector<Layer> layers(1);
  layers[0] = {.name = "q"};
  layers[0].make();
  std::vector<weights::NamedTensor> tensors;
  layers[0].add_to(tensors);
  std::vector<Float16> weight(kWidth * kInner);
  const std::vector<float> values = random_values(kWidth * kInner, 8, 0.05f), bias = random_values(kWidth, 9);
  for (std::size_t i = 0; i < weight.size(); ++i) weight[i] = to_float16(values[i]);
  tensors.push_back({"k.weight", TensorView(weight.data(), DType::kF16, Shape{kWidth, kInner})});
  tensors.push_back({"k.bias", TensorView(bias.data(), DType::kF32, Shape{kWidth})});
  WeightStore store = write(tensors, ActivationForm::kToken, DType::kE4M3);
  LoadContext load{*device_, store, DType::kF32};
  const std::vector<std::string> names = {"q", "k"};
  const Linear linear = Linear::load_joined(load, names, kInner, kWidth, true);
  ASSERT_TRUE(store.finish().ok() && load.status.ok()) << load.status.to_string();
  EXPECT_EQ(load.forms.plain, 2);
  const std::vector<float> out = forward(linear, x_);
  std::vector<BFloat16> q(kWidth * kInner);
  dequantize_rows(layers[0].quantized, TensorView(q.data(), DType::kBF16, Shape{kWidth, kInner}));
  std::vector<double> expected(out.size());
  for (std::int64_t at = 0; at < std::ssize(expected); ++at) {
    const std::int64_t row = at / (2 * kWidth), n = at % (2 * kWidth);
    double sum = n < kWidth ? layers[0].bias[static_cast<std::size_t>(n)] : bias[static_cast<std::size_t>(n - kWidth)];
    for (std::int64_t k = 0; k < kInner; ++k) {
      const float w = n < kWidth ? to_float(q[static_cast<std::size_t>(n * kInner + k)])
                                 : to_float(weight[static_cast<std::size_t>((n - kWidth) * kInner + k)]);
      sum += static_cast<double>(x_[static_cast<std::size_t>(row * kInner + k)]) * w;
    }
    expected[static_cast<std::size_t>(at)] = sum;
  }
  expect_formula(out, expected, "mixed");
}

TEST_F(LinearForms, widened_codes_stand_for_scales_multiplier_and_split_columns) {
  for (const WeightPrecision precision : {WeightPrecision::kWidened, WeightPrecision::kWeightsQuantized}) {
    std::vector<Layer> layers(1);
    layers[0] = {.name = "a", .multiplier = true, .outliers = {3, 128, 299}};
    WeightStore store = write_quantized(layers, ActivationForm::kToken, DType::kE4M3);
    LoadContext load{*device_, store, {DType::kF32, precision}};
    const Linear linear = Linear::load(load, "a", kInner, kWidth, true);
    ASSERT_TRUE(store.finish().ok() && load.status.ok());
    EXPECT_EQ(linear.quantized(), nullptr);
    EXPECT_EQ(load.forms.plain, 1);
    const std::vector<float> out = forward(linear, x_);
    const testing::QuantizedFormula formula{
        .weight = layers[0].quantized,
        .multiplier = layers[0].multipliers,
        .outliers = layers[0].outliers,
        .outlier_weight = TensorView(layers[0].outlier_weight.data(), DType::kBF16, Shape{kWidth, 3})};
    const std::vector<double> exact = with_bias(formula.product(x_view_), layers[0].bias);
    double error = 0, size = 0;
    for (std::size_t i = 0; i < out.size(); ++i) {
      error += (out[i] - exact[i]) * (out[i] - exact[i]);
      size += exact[i] * exact[i];
    }
    EXPECT_LT(std::sqrt(error / size), 4e-3);  // each weight is rounded to 8 bits once more
    EXPECT_GT(error, 0);
  }
}

TEST_F(LinearForms, plain_inputs_of_codes_without_extras_keep_the_codes) {
  std::vector<Layer> layers(1);
  layers[0] = {.name = "a"};
  WeightStore store = write_quantized(layers, ActivationForm::kToken, DType::kE4M3);
  LoadContext load{*device_, store, {DType::kF32, WeightPrecision::kWeightsQuantized}};
  const Linear linear = Linear::load(load, "a", kInner, kWidth, true);
  ASSERT_TRUE(store.finish().ok() && load.status.ok());
  ASSERT_NE(linear.quantized(), nullptr);
  EXPECT_EQ(load.forms.w8a16, 1);
  const testing::QuantizedFormula formula{.weight = layers[0].quantized};
  expect_formula(forward(linear, x_), with_bias(formula.product(x_view_), layers[0].bias), "w8a16");
}

TEST_F(LinearForms, weights_quantised_at_load_equal_the_formula) {
  const std::vector<float> weight = random_values(kWidth * kInner, 5, 0.05f);
  const std::vector<float> bias = random_values(kWidth, 6);
  std::vector<std::byte> codes(weight.size());
  std::vector<float> scales(kWidth);
  QuantizedView quantized{{}, TensorView(scales.data(), DType::kF32, Shape{kWidth}), ScaleGrain::kRow};
  for (const WeightPrecision precision : {WeightPrecision::kQuantized, WeightPrecision::kWeightsQuantized}) {
    for (const AtLoad at_load : {AtLoad::kNothing, AtLoad::kProduct, AtLoad::kStorage}) {
      WeightStore store = write_plain("a", weight, bias);
      LoadContext load{*device_, store, {DType::kF32, precision}};
      load.at_load = at_load;
      const Linear linear = Linear::load(load, "a", kInner, kWidth, true);
      ASSERT_TRUE(store.finish().ok() && load.status.ok());
      EXPECT_EQ(load.forms.quantized_at_load, at_load == AtLoad::kNothing ? 0 : 1);
      EXPECT_EQ(linear.quantized() != nullptr, at_load != AtLoad::kNothing);
      if (at_load == AtLoad::kNothing) continue;
      quantized.codes =
          TensorView(codes.data(), at_load == AtLoad::kStorage ? DType::kI8 : DType::kE4M3, Shape{kWidth, kInner});
      quantize_rows(TensorView(weight.data(), DType::kF32, Shape{kWidth, kInner}), quantized);
      testing::QuantizedFormula formula{.weight = quantized};
      if (precision == WeightPrecision::kQuantized && at_load == AtLoad::kProduct) formula.input_format = DType::kE4M3;
      expect_formula(forward(linear, x_), with_bias(formula.product(x_view_), bias), "at load");
    }
  }
}

TEST_F(LinearForms, what_is_not_finite_cannot_be_quantised_at_load) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> weight = random_values(kWidth * kInner, 5, 0.05f);
    weight[5 * kInner + 17] = bad;
    WeightStore store = write_plain("a", weight, random_values(kWidth, 6));
    LoadContext load{*device_, store, {DType::kF32, WeightPrecision::kQuantized}};
    load.at_load = AtLoad::kProduct;
    Linear::load(load, "a", kInner, kWidth, true);
    EXPECT_THAT(load.status.to_string(), AllOf(HasSubstr("a.weight"), HasSubstr("row 5")));
  }
}

}  // namespace
}  // namespace octavo::layers
