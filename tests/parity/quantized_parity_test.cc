// Quantised arithmetic against torch's float8 types (tools/reference/record_quantized.py), and a quantised transformer
// layer by layer against the formula in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "models/mmdit/mmdit.h"
#include "ops/scaled_matmul/scaled_matmul.h"
#include "quantize/policy.h"
#include "testing/expect_close.h"
#include "testing/quantized_formula.h"
#include "tests/parity/fixture.h"
#include "tests/parity/recipe_model.h"

namespace octavo::parity {
namespace {

using layers::WeightPrecision;
using testing::expect_close;
using testing::kExact;
using testing::kForwardF32;
using testing::kForwardQuantized;
using testing::kOpF32;

constexpr ScaleGrain kGrains[] = {ScaleGrain::kTensor, ScaleGrain::kRow, ScaleGrain::kBlock128};

/// A device, and work done twice on it: dry to size the arena, then for good.
class Machine {
 public:
  device::Device& device() { return *device_; }
  template <typename Work>
  void run(device::TapSink* taps, const Work& work) {
    device::ExecutionContext context(*device_, *stream_, arena_);
    arena_.set_measuring(true);
    work(context);
    const std::size_t peak = arena_.peak_bytes();
    arena_.set_measuring(false);
    ASSERT_TRUE(arena_.reserve(*device_, peak).ok());
    context.set_tap(taps);
    work(context);
  }

 private:
  std::unique_ptr<device::Device> device_ = device::create_cpu_device();
  std::unique_ptr<device::Stream> stream_ = device_->create_stream();
  device::Arena arena_;
};

class QuantizedParity : public ::testing::TestWithParam<DType> {
 protected:
  std::string key(const std::string& name, ScaleGrain grain, const std::string& what) const {
    return fmt::format("{}.{}.{}.{}", name, dtype_name(GetParam()), scale_grain_name(grain), what);
  }
  QuantizedView recorded(const std::string& name, ScaleGrain grain) const {
    return {fixture_[key(name, grain, "codes")], fixture_[key(name, grain, "scale")], grain};
  }
  const Fixture fixture_{"tensor/quantized.safetensors"};
};

TEST_P(QuantizedParity, codes_and_scales_equal_torch_bit_for_bit) {
  for (const ScaleGrain grain : kGrains) {
    for (const std::string name : {"x", "w"}) {
      const TensorView x = fixture_[name];
      const QuantizedView expected = recorded(name, grain);
      std::vector<std::byte> codes(static_cast<std::size_t>(x.element_count()));
      const Shape scale = scale_shape(grain, x.dim(0), x.dim(1));
      std::vector<float> scales(static_cast<std::size_t>(scale.element_count()));
      ASSERT_EQ(expected.dequant_scale.shape(), scale);
      quantize_rows(
          x, {TensorView(codes.data(), GetParam(), x.shape()), TensorView(scales.data(), DType::kF32, scale), grain});
      EXPECT_TRUE(expect_close(TensorView(scales.data(), DType::kF32, scale), expected.dequant_scale, kExact))
          << key(name, grain, "scale");
      EXPECT_EQ(std::memcmp(codes.data(), expected.codes.data(), codes.size()), 0) << key(name, grain, "codes");
    }
  }
}

TEST_P(QuantizedParity, products_equal_torch_in_every_kernel_row) {
  Machine machine;
  for (const ScaleGrain w_grain : kGrains) {
    for (const ScaleGrain x_grain : kGrains) {
      const TensorView expected = fixture_[fmt::format("product.{}.{}.{}", dtype_name(GetParam()),
                                                       scale_grain_name(w_grain), scale_grain_name(x_grain))];
      ops::ScaledMatmulArgs args;
      args.x = recorded("x", x_grain);
      const auto packed = ops::pack_scaled_weight(machine.device(), recorded("w", w_grain), {}, {GetParam(), x_grain});
      ASSERT_TRUE(packed.ok());
      args.weight = *packed;
      std::vector<float> out(static_cast<std::size_t>(expected.element_count()));
      args.out = TensorView(out.data(), DType::kF32, expected.shape());
      for (const auto& row : ops::scaled_matmul_table().rows()) {
        machine.run(nullptr, [&](device::ExecutionContext& context) {
          context.set_kernel_overrides({{"scaled_matmul", std::string(row.name)}});
          ops::scaled_matmul(context, args);
        });
        for (std::int64_t m = 0; m < expected.dim(0); ++m) {  // rows differ in size by 10^5
          EXPECT_TRUE(expect_close(args.out.slice(0, m, 1), expected.slice(0, m, 1), kOpF32))
              << row.name << ", row " << m << ", " << scale_grain_name(w_grain) << " by " << scale_grain_name(x_grain);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(formats, QuantizedParity, ::testing::Values(DType::kE4M3, DType::kE5M2, DType::kI8),
                         [](const auto& tested) { return std::string(dtype_name(tested.param)); });

/// The first rows of what Linears read, by the name of the layer (joined: the first). Rows do not influence each other,
/// so a few are as good as all.
class InputRecorder final : public device::TapSink {
 public:
  struct Input {
    std::vector<std::byte> bytes;
    DType dtype = DType::kF32;
    std::int64_t inner = 0;
    TensorView view() const {
      const auto rows = static_cast<std::int64_t>(bytes.size() / dtype_size(dtype)) / inner;
      return {bytes.data(), dtype, Shape{rows, inner}};
    }
  };
  void on_tensor(std::string_view path, const TensorView& value) override {
    constexpr std::string_view kStart = "transformer.", kEnd = ".input";
    if (!path.starts_with(kStart) || !path.ends_with(kEnd)) return;
    constexpr std::int64_t kMostRows = 9;
    const TensorView first = value.rank() == 3 ? value.slice(0, 0, 1).slice(1, 0, std::min(kMostRows, value.dim(1)))
                                               : value.slice(0, 0, std::min(kMostRows, value.dim(0)));
    Input& input = inputs[std::string(path.substr(kStart.size(), path.size() - kStart.size() - kEnd.size()))];
    input = {{}, value.dtype(), value.dim(-1)};
    for (std::int64_t row = 0; row < first.dim(-2); ++row) {
      const auto* from = static_cast<const std::byte*>(first.slice(-2, row, 1).data());
      input.bytes.insert(input.bytes.end(), from,
                         from + value.dim(-1) * static_cast<std::int64_t>(dtype_size(value.dtype())));
    }
  }
  std::map<std::string, Input> inputs;
};

class QuantizedTransformer : public ::testing::TestWithParam<std::string> {
 protected:
  std::vector<float> predict(const models::Mmdit& mmdit, device::TapSink* taps) {
    const auto input = [&](const char* name) { return fixture_[std::string("transformer.") + name]; };
    const TensorView latents = input("latents"), text = input("text");
    const std::int64_t rows = latents.dim(0);
    std::vector<float> context_rows(static_cast<std::size_t>(rows * text.dim(1) * mmdit.config().width));
    std::vector<float> modulations(static_cast<std::size_t>(rows * mmdit.modulation_width()));
    std::vector<float> velocity(static_cast<std::size_t>(latents.element_count()));
    const models::MmditConditioning conditioning{
        TensorView(context_rows.data(), DType::kF32, Shape{rows, text.dim(1), mmdit.config().width}),
        TensorView(modulations.data(), DType::kF32, Shape{rows, mmdit.modulation_width()}), rows};
    machine_.run(taps, [&](device::ExecutionContext& context) {
      mmdit.prepare(context, text, input("pooled"), input("timesteps"), conditioning);
      mmdit.predict(context, latents, 0, conditioning, TensorView(velocity.data(), DType::kF32, latents.shape()));
    });
    return velocity;
  }
  Result<models::Mmdit> load(const layers::Precision& precision) {
    return models::Mmdit::load(machine_.device(), model_.part("transformer"), precision);
  }
  /// The layers that a tapped one stands for.
  static std::vector<std::string> joined(const std::string& layer) {
    for (const auto& [first, names] :
         std::map<std::string, std::vector<std::string>>{{"to_q", {"to_q", "to_k", "to_v"}},
                                                         {"add_q_proj", {"add_q_proj", "add_k_proj", "add_v_proj"}},
                                                         {"add_k_proj", {"add_k_proj", "add_v_proj"}}}) {
      if (!layer.ends_with("." + first)) continue;
      std::vector<std::string> result;
      for (const std::string& name : names) result.push_back(layer.substr(0, layer.size() - first.size()) + name);
      return result;
    }
    return {layer};
  }

  const std::string name_ = "models/" + GetParam() + ".safetensors";
  const Fixture fixture_{name_};
  const RecipeModel model_{name_};
  Machine machine_;
};

TEST_P(QuantizedTransformer, every_layer_equals_the_formula_on_the_input_that_it_read) {
  const quantize::Policy policy = quantize::default_policy();
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    if (dtype == DType::kBF16 && !machine_.device().traits().has_avx512_bf16) continue;
    for (const WeightPrecision precision : {WeightPrecision::kQuantized, WeightPrecision::kWeightsQuantized}) {
      const auto mmdit = load({dtype, precision});
      ASSERT_TRUE(mmdit.ok()) << mmdit.status().to_string();
      InputRecorder recorder;
      predict(*mmdit, &recorder);
      weights::CheckpointPart part = model_.part("transformer");
      int quantised = 0;
      double worst = 0;
      for (const auto& [layer, input] : recorder.inputs) {
        const quantize::Decision decision = quantize::decide(policy, layer);
        if (!decision.quantise) continue;
        const bool stored = decision.activations == quantize::Activations::kNone;
        const TensorView x = input.view();
        const std::vector<std::string> names = joined(layer);
        quantised += static_cast<int>(names.size());
        const std::int64_t width = (*part.weights.shape_of(names.front() + ".weight"))[0];
        layers::LoadContext context{machine_.device(), part.weights, {x.dtype(), precision}};
        context.at_load = stored ? layers::AtLoad::kStorage : layers::AtLoad::kProduct;
        const auto linear = layers::Linear::load_joined(context, names, x.dim(1), width, true);
        ASSERT_TRUE(context.status.ok()) << context.status.to_string();
        ASSERT_NE(linear.quantized(), nullptr);
        std::vector<float> out(static_cast<std::size_t>(x.dim(0) * linear.out_features()));
        const TensorView out_view(out.data(), DType::kF32, Shape{x.dim(0), linear.out_features()});
        machine_.run(nullptr, [&](device::ExecutionContext& run) { linear.forward(run, x, out_view); });

        double error = 0, size = 0;
        for (std::size_t i = 0; i < names.size(); ++i) {
          const TensorView plain = part.weights.require(names[i] + ".weight", Shape{width, x.dim(1)});
          const TensorView bias = part.weights.require(names[i] + ".bias", Shape{width});
          std::vector<std::byte> codes(static_cast<std::size_t>(plain.element_count()));
          std::vector<float> scales(static_cast<std::size_t>(width));
          testing::QuantizedFormula formula{
              .weight = {TensorView(codes.data(), decision.format.value_or(DType::kE4M3), plain.shape()),
                         TensorView(scales.data(), DType::kF32, Shape{width}), ScaleGrain::kRow}};
          quantize_rows(plain, formula.weight);
          if (precision == WeightPrecision::kQuantized && !stored) formula.input_format = DType::kE4M3;
          const std::vector<double> product = formula.product(x);
          for (std::int64_t at = 0; at < x.dim(0) * width; ++at) {
            const float b = bias.dtype() == DType::kF16 ? to_float(bias.as<Float16>()[at % width])
                                                        : to_float(bias.as<BFloat16>()[at % width]);
            const double expected = product[static_cast<std::size_t>(at)] + b;
            const std::int64_t ours =
                at / width * linear.out_features() + static_cast<std::int64_t>(i) * width + at % width;
            const double difference = out[static_cast<std::size_t>(ours)] - expected;
            error += difference * difference;
            size += expected * expected;
          }
        }
        const double relative = std::sqrt(error / size);
        EXPECT_LT(relative, 1e-6) << layer << " in " << dtype_name(dtype);
        worst = std::max(worst, relative);
      }
      // Every layer of the policy was read, and nothing else is quantised.
      const layers::WeightForms& forms = mmdit->forms();
      EXPECT_EQ(quantised, forms.w8a8 + forms.w8a16);
      EXPECT_EQ(forms.quantized_at_load, quantised);
      EXPECT_EQ(forms.w8a8 > 0, precision == WeightPrecision::kQuantized);
      std::printf("%s, %s, %s: %d layers, relative error at most %.1e\n", GetParam().c_str(),
                  std::string(dtype_name(dtype)).c_str(), precision == WeightPrecision::kQuantized ? "w8a8" : "w8a16",
                  quantised, worst);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Recorded, QuantizedTransformer, ::testing::Values("quantized", "small"),
                         [](const auto& tested) { return tested.param; });

class QuantizedForward : public QuantizedTransformer {};

TEST_P(QuantizedForward, equals_diffusers_with_the_formula_in_its_linears) {
  const TensorView plain = fixture_["transformer.velocity"];
  const struct {
    WeightPrecision precision;
    const char* name;
    const testing::Tolerance& tolerance;
  } cases[] = {{WeightPrecision::kQuantized, "transformer.w8a8_velocity", kForwardQuantized},
               {WeightPrecision::kWeightsQuantized, "transformer.w8a16_velocity", kForwardF32}};
  for (const auto& one : cases) {
    const auto mmdit = load({DType::kF32, one.precision});
    ASSERT_TRUE(mmdit.ok()) << mmdit.status().to_string();
    const std::vector<float> velocity = predict(*mmdit, nullptr);
    const TensorView ours(velocity.data(), DType::kF32, plain.shape());
    EXPECT_TRUE(expect_close(ours, fixture_[one.name], one.tolerance)) << one.name;
    EXPECT_FALSE(expect_close(ours, plain, one.tolerance)) << "quantising " << one.name << " changes more than that";
  }
}

INSTANTIATE_TEST_SUITE_P(Recorded, QuantizedForward, ::testing::Values("quantized"),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace octavo::parity
