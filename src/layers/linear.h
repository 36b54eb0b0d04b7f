// Linear: the only place that knows how a weight of a product is stored: in 16 or 32 bits, or in 8 (QuantizedProduct),
// from the file or quantised at load, as LoadContext::precision and the file say.
#pragma once

#include <span>
#include <string>

#include "layers/load_context.h"
#include "layers/quantized_product.h"
#include "ops/matmul/matmul.h"

namespace octavo::layers {

/// What rides on the product besides the bias (ops::Epilogue).
struct LinearExtras {
  ops::Activation activation = ops::Activation::kNone;
  TensorView residual = {};  // as out, f32
  TensorView gate = {};      // [B, N] f32
};

/// What a product reads: plain activations, or the codes that the op before wrote for it.
struct LinearInput {
  TensorView plain;        // f32 | bf16; undefined when `codes` are there
  QuantizedView codes;     // scales a token, or one that is known beforehand
  TensorView quant_scale;  // [1]: the reciprocal of the latter, which the op before multiplies by

  bool coded() const { return codes.codes.defined(); }
  /// Where the op before writes.
  const TensorView& out() const { return coded() ? codes.codes : plain; }
  /// The dequant scales that it measures and writes beside `out()`; undefined when there are none to measure.
  TensorView out_scale() const { return quant_scale.defined() ? TensorView() : codes.dequant_scale; }
};

class Linear {
 public:
  Linear() = default;
  /// <prefix>.weight [out_features, in_features] and, with_bias, <prefix>.bias [out_features].
  static Linear load(LoadContext& load, const std::string& prefix, std::int64_t in_features, std::int64_t out_features,
                     bool with_bias);
  /// Several projections of one input as one product: their rows one after another (q, k, v). The joined weight is a
  /// copy in the file's dtype, f32 where they differ, unless the file has them joined. Codes stay codes when all have
  /// them.
  static Linear load_joined(LoadContext& load, std::span<const std::string> prefixes, std::int64_t in_features,
                            std::int64_t out_features_each, bool with_bias);
  /// A 2x2 patch convolution [out, channels, 2, 2] seen as rows over (c, dy, dx).
  static Linear load_patch_embedding(LoadContext& load, const std::string& prefix, std::int64_t channels,
                                     std::int64_t out_features);

  /// Taps x as "<LoadContext::tap_label>.<prefix>.input" (joined: the first prefix), then
  /// out = epilogue(x * weight^T + bias); x [M, K] or [B, T, K] f32 | bf16, out alike with N, f32 | bf16.
  void forward(ops::ExecutionContext& context, const TensorView& x, const TensorView& out,
               const LinearExtras& extras = {}) const;

  /// Where an op that writes this product's input (a norm, an activation) puts it: codes with scales where the device
  /// fuses that and the weight asks for no more than rounding, else plain activations of `plain_dtype`. In the memory
  /// of `buffer`, contiguous, of at least as many bytes as `shape` has in plain_dtype; nothing is allocated. Plain
  /// while a sink listens to inputs.
  LinearInput input_in(const ops::ExecutionContext& context, const TensorView& buffer, Shape shape,
                       DType plain_dtype) const;
  /// As above, from what input_in() gave.
  void forward(ops::ExecutionContext& context, const LinearInput& x, const TensorView& out,
               const LinearExtras& extras = {}) const;
  /// Where this product puts what `next` reads: as next.input_in() says if this one may write such codes, else plain.
  LinearInput output_for(const Linear& next, const ops::ExecutionContext& context, const TensorView& buffer,
                         Shape shape, DType plain_dtype) const;
  /// As above, into what output_for() gave.
  void forward(ops::ExecutionContext& context, const LinearInput& x, const LinearInput& out,
               const LinearExtras& extras = {}) const;

  /// Null unless the weight has 8 bits.
  const QuantizedProduct* quantized() const { return quantized_ ? &*quantized_ : nullptr; }
  std::int64_t out_features() const { return out_features_; }

 private:
  static std::string input_tap(const LoadContext& load, const std::string& prefix);
  /// Codes of a quantised part, when they are to be used; false = the weight is to be taken widened.
  bool take_codes(LoadContext& load, std::span<const std::string> prefixes, std::int64_t out_features_each);
  void set_weight(LoadContext& load, std::span<const std::string> prefixes, TensorView plain);
  /// Of the layers that `quantized_` holds.
  void count_forms(LoadContext& load, int layers) const;
  ops::Epilogue epilogue_of(const LinearExtras& extras) const {
    return {.bias = bias_.view, .activation = extras.activation, .residual = extras.residual, .gate = extras.gate};
  }
  std::string input_tap_;
  std::int64_t in_features_ = 0;
  std::int64_t out_features_ = 0;
  ops::MatmulWeight weight_;
  device::Buffer joined_;                      // behind weight_.plain when it is not the file
  StreamedWeight streamed_;                    // where weight_.plain comes from, if it does not stay on the device
  std::optional<QuantizedProduct> quantized_;  // instead of weight_
  OwnedTensor bias_;
};

}  // namespace octavo::layers
