// QuantizedProduct: what a Linear holds when its weight has 8 bits.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "layers/load_context.h"
#include "ops/scaled_matmul/scaled_matmul.h"

namespace octavo::layers {

/// Inputs become 8 bits too (W8A8): one scale a token or a block of 128, measured while running, or one static scale;
/// columns may be multiplied first, and some may stay in 16 bits beside the product. Or they stay as they are (W8A16).
class QuantizedProduct {
 public:
  /// The codes of layers that read one input, their rows one after another. Scales join: one a tensor becomes one a row
  /// where there are several. Notes kDataCorruption naming the layers when their inputs are not quantised alike.
  /// Nothing when that or memory fails.
  static std::optional<QuantizedProduct> from_codes(LoadContext& load, std::span<const std::string> layers,
                                                    std::span<const weights::QuantizedWeight> codes);
  /// Quantises `plain` [N, K] (f32 | f16 | bf16, in the device's memory) now, as load.at_load says (not kNothing);
  /// inputs stay as they are when precision.weights is kWeightsQuantized. `layers` have as many rows each. Notes
  /// kDataCorruption naming the one that holds NaN or infinity.
  static std::optional<QuantizedProduct> quantize(LoadContext& load, std::span<const std::string> layers,
                                                  const TensorView& plain);
  /// Whether from_codes() takes these: plain inputs have no multiplier and no columns apart.
  static bool takes(const LoadContext& load, const weights::QuantizedWeight& codes);

  /// out = epilogue(x * weight^T), as codes where `out_quant_scale` is given (ScaledMatmulArgs).
  void forward(ops::ExecutionContext& context, const TensorView& x, const ops::Epilogue& epilogue,
               const TensorView& out, const TensorView& out_quant_scale = {}) const;

  bool quantizes_input() const { return input_ != weights::ActivationForm::kNone; }
  DType input_format() const { return input_format_; }
  /// The input's one static scale, [1], and its reciprocal; undefined when scales are measured.
  const TensorView& input_scale() const { return input_scale_.view; }
  const TensorView& input_quant_scale() const { return input_quant_scale_.view; }
  /// Whether an op on this device may write the codes of the input: one scale a token, or a static one, and nothing
  /// else to do.
  bool takes_fused_codes(const device::DeviceTraits& traits) const;
  /// forward() from such codes.
  void forward_codes(ops::ExecutionContext& context, const QuantizedView& x, const ops::Epilogue& epilogue,
                     const TensorView& out, const TensorView& out_quant_scale = {}) const;
  /// Whether the product itself may write the codes that `next` reads: E4M3 with one static scale, and the tensor
  /// cores' products store such codes when x and the weight have one scale each.
  bool writes_codes_for(const QuantizedProduct& next, const device::DeviceTraits& traits) const;

 private:
  QuantizedProduct() = default;
  /// `one_scale`: the scales are all one, however they are stored.
  bool pack(LoadContext& load, const QuantizedView& quantized, bool one_scale);
  void set_input_scale(LoadContext& load, float dequant_scale);

  weights::ActivationForm input_ = weights::ActivationForm::kToken;
  DType input_format_ = DType::kE4M3;
  /// weight_, with its codes on the device.
  ops::ScaledWeight weight_at(ops::ExecutionContext& context) const;
  ops::ScaledWeight weight_;
  StreamedWeight streamed_;
  device::Buffer codes_;  // behind weight_.quantized.codes when that is not the file
  OwnedTensor scales_, input_scale_, input_quant_scale_, multiplier_, outliers_, outlier_weight_;
};

}  // namespace octavo::layers
