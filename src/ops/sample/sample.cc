#include "ops/sample/sample.h"

#include "ops/parallel_rows.h"
#include "ops/require.h"
#include "ops/sample/sample_kernels.h"
#include "ops/vector_row.h"

namespace octavo::ops {
namespace {

/// f32, contiguous, as many elements as `out`.
void require_flat(std::string_view op, std::string_view argument, const TensorView& view, const TensorView& out) {
  require_dtype(op, argument, view, {DType::kF32});
  require_contiguous(op, argument, view);
  OCTAVO_CHECK(view.defined() && view.element_count() == out.element_count(), "op {}: {} is {}, out is {}", op,
               argument, view.shape().to_string(), out.shape().to_string());
}

void lincomb_vector(ExecutionContext& context, const LincombArgs& args, void*) {
  run_rows(context, args, args.out.element_count(), args.term_count, lincomb_elements);
}

void guidance_vector(ExecutionContext& context, const GuidanceArgs& args, void*) {
  run_rows(context, args, args.out.element_count(), 2, guidance_elements);
}

void latents_to_decoder_vector(ExecutionContext& context, const LatentsToDecoderArgs& args, void*) {
  run_rows(context, args, args.latents.dim(0) * args.latents.dim(2), args.latents.dim(1) * args.latents.dim(3),
           latents_to_decoder_rows);
}

void to_pixels_vector(ExecutionContext& context, const ToPixelsArgs& args, void*) {
  run_rows(context, args, args.x.dim(0) * args.x.dim(1), 3 * args.x.dim(2), to_pixels_rows);
}

/// A row of pixels is one run of bytes.
bool has_vectors_and_dense_pixels(const ToPixelsArgs& args, const DeviceTraits& traits) {
  return traits.has_avx2 && args.x.stride(2) == 3 && args.out.stride(2) == 3;
}

}  // namespace

KernelTable<LincombArgs>& lincomb_table() {
  static KernelTable<LincombArgs> table("lincomb", {{.name = "vector", .supports = has_vectors, .run = lincomb_vector},
                                                    {.name = "reference", .run = lincomb_reference}});
  return table;
}

void lincomb(ExecutionContext& context, const LincombArgs& args) {
  constexpr std::string_view op = "lincomb";
  OCTAVO_CHECK(args.term_count >= 1 && args.term_count <= static_cast<int>(args.terms.size()), "op lincomb: {} terms",
               args.term_count);
  require_flat(op, "out", args.out, args.out);
  for (int term = 0; term < args.term_count; ++term) {
    require_flat(op, "input", args.terms[static_cast<std::size_t>(term)].input, args.out);
  }
  lincomb_table().dispatch(context, args);
}

KernelTable<GuidanceArgs>& guidance_table() {
  static KernelTable<GuidanceArgs> table("guidance",
                                         {{.name = "vector", .supports = has_vectors, .run = guidance_vector},
                                          {.name = "reference", .run = guidance_reference}});
  return table;
}

void guidance(ExecutionContext& context, const GuidanceArgs& args) {
  constexpr std::string_view op = "guidance";
  require_flat(op, "out", args.out, args.out);
  require_flat(op, "uncond", args.uncond, args.out);
  require_flat(op, "cond", args.cond, args.out);
  guidance_table().dispatch(context, args);
}

KernelTable<BlendKnownArgs>& blend_known_table() {
  // Memory-bound and once a step: 1 MiB at 1024x1024 against a transformer's forward.
  static KernelTable<BlendKnownArgs> table("blend_known", {{.name = "reference", .run = blend_known_reference}});
  return table;
}

void blend_known(ExecutionContext& context, const BlendKnownArgs& args) {
  constexpr std::string_view op = "blend_known";
  require_rank(op, "latents", args.latents, 4);
  require_flat(op, "latents", args.latents, args.latents);
  require_flat(op, "image", args.image, args.latents);
  require_flat(op, "noise", args.noise, args.latents);
  require_shape(op, "mask", args.mask, Shape{args.latents.dim(0), args.latents.dim(2), args.latents.dim(3)});
  require_dtype(op, "mask", args.mask, {DType::kF32});
  require_contiguous(op, "mask", args.mask);
  blend_known_table().dispatch(context, args);
}

KernelTable<LatentsToDecoderArgs>& latents_to_decoder_table() {
  static KernelTable<LatentsToDecoderArgs> table(
      "latents_to_decoder", {{.name = "vector", .supports = has_vectors, .run = latents_to_decoder_vector},
                             {.name = "reference", .run = latents_to_decoder_reference}});
  return table;
}

void latents_to_decoder(ExecutionContext& context, const LatentsToDecoderArgs& args) {
  constexpr std::string_view op = "latents_to_decoder";
  const auto& latents = args.latents;
  require_rank(op, "latents", latents, 4);
  require_dtype(op, "latents", latents, {DType::kF32});
  require_shape(op, "out", args.out, Shape{latents.dim(0), latents.dim(2), latents.dim(3), latents.dim(1)});
  require_dtype(op, "out", args.out, {DType::kF32, DType::kBF16});
  OCTAVO_CHECK(args.scaling_factor != 0.0f, "op latents_to_decoder: scaling_factor is 0");
  latents_to_decoder_table().dispatch(context, args);
}

KernelTable<ToPixelsArgs>& to_pixels_table() {
  static KernelTable<ToPixelsArgs> table(
      "to_pixels", {{.name = "vector", .supports = has_vectors_and_dense_pixels, .run = to_pixels_vector},
                    {.name = "reference", .run = to_pixels_reference}});
  return table;
}

void to_pixels(ExecutionContext& context, const ToPixelsArgs& args) {
  constexpr std::string_view op = "to_pixels";
  require_rank(op, "x", args.x, 4);
  require_dtype(op, "x", args.x, {DType::kF32, DType::kBF16});
  require_shape(op, "x", args.x, Shape{args.x.dim(0), args.x.dim(1), args.x.dim(2), 3});
  require_shape(op, "out", args.out, args.x.shape());
  require_dtype(op, "out", args.out, {DType::kI8});
  to_pixels_table().dispatch(context, args);
}

KernelTable<CheckFiniteArgs>& check_finite_table() {
  static KernelTable<CheckFiniteArgs> table("check_finite",
                                            {{.name = "vector", .supports = has_vectors, .run = check_finite_vector},
                                             {.name = "reference", .run = check_finite_reference}});
  return table;
}

void check_finite(ExecutionContext& context, const CheckFiniteArgs& args) {
  constexpr std::string_view op = "check_finite";
  require_flat(op, "x", args.x, args.x);
  require_shape(op, "all_finite", args.all_finite, Shape{1});
  require_dtype(op, "all_finite", args.all_finite, {DType::kI32});
  check_finite_table().dispatch(context, args);
}

}  // namespace octavo::ops
