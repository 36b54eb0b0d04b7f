#include "models/mmdit/mmdit.h"

#include <algorithm>
#include <cmath>

#include "ops/activation/activation.h"
#include "ops/attention/attention.h"
#include "ops/cast/cast.h"
#include "ops/embedding/embedding.h"
#include "ops/norm/norm.h"
#include "ops/patch/patch.h"
#include "ops/sample/sample.h"

namespace octavo::models {
namespace {

constexpr float kNormEps = 1e-6f;
constexpr std::int64_t kTimestepWidth = 256;

/// The vectors that a modulation's columns hold, for the rows of one model call.
class Modulation {
 public:
  Modulation(const MmditConditioning& conditioning, int call, std::int64_t column, std::int64_t width)
      : rows_(conditioning.modulations.slice(0, call * conditioning.rows, conditioning.rows)),
        column_(column),
        width_(width) {}
  /// [R, width], row-strided.
  TensorView vector(int index) const { return rows_.slice(1, column_ + index * width_, width_); }

 private:
  TensorView rows_;
  std::int64_t column_;
  std::int64_t width_;
};

// Chunk order of a six-fold modulation (diffusers AdaLayerNormZero).
constexpr int kShiftAttention = 0, kScaleAttention = 1, kGateAttention = 2, kShiftFeed = 3, kScaleFeed = 4, kGateFeed = 5;
// Chunk order of a two-fold one in diffusers files (AdaLayerNormContinuous): the original files swap the halves.
constexpr int kContinuousScale = 0, kContinuousShift = 1;

}  // namespace

void Mmdit::prepare(ops::ExecutionContext& context, const TensorView& text, const TensorView& pooled,
                    const TensorView& timesteps, const MmditConditioning& conditioning) const {
  const std::int64_t D = config_.width, R = conditioning.rows, calls = timesteps.dim(0);
  auto& arena = context.arena();
  device::Arena::Scope scope(arena);
  context_.forward(context, text, conditioning.context);
  context.tap(label_ + ".context_embedder", conditioning.context);

  const TensorView sinusoid = arena.take(DType::kF32, Shape{calls, kTimestepWidth});
  const TensorView hidden = arena.take(DType::kF32, Shape{calls, D});
  const TensorView time = arena.take(DType::kF32, Shape{calls, D});
  ops::timestep_embedding(context, {.timesteps = timesteps, .out = sinusoid});
  time1_.forward(context, sinusoid, hidden, {.activation = ops::Activation::kSilu});
  time2_.forward(context, hidden, time);
  const TensorView pooled_hidden = arena.take(DType::kF32, Shape{R, D});
  const TensorView pooled_embedding = arena.take(DType::kF32, Shape{R, D});
  pooled1_.forward(context, pooled, pooled_hidden, {.activation = ops::Activation::kSilu});
  pooled2_.forward(context, pooled_hidden, pooled_embedding);

  // temb[call, r] = time[call] + pooled[r]; every modulation layer sees SiLU(temb).
  const TensorView temb = arena.take(DType::kF32, Shape{calls * R, D});
  for (std::int64_t call = 0; call < calls; ++call) {
    for (std::int64_t r = 0; r < R; ++r) {
      ops::LincombArgs sum;
      sum.terms[0] = {1.0f, time.slice(0, call, 1)};
      sum.terms[1] = {1.0f, pooled_embedding.slice(0, r, 1)};
      sum.term_count = 2;
      sum.out = temb.slice(0, call * R + r, 1);
      ops::lincomb(context, sum);
    }
  }
  context.tap(label_ + ".time_text_embed", temb);
  ops::activation(context, {.activation = ops::Activation::kSilu, .x = temb, .out = temb});

  const auto modulate = [&](const layers::Linear& linear, std::int64_t column) {
    linear.forward(context, temb, conditioning.modulations.slice(1, column, linear.out_features()));
  };
  for (const Block& block : blocks_) {
    modulate(block.image.modulation, block.image.modulation_column);
    modulate(block.text.modulation, block.text.modulation_column);
  }
  modulate(final_modulation_, final_column_);
}

void Mmdit::predict(ops::ExecutionContext& context, const TensorView& latents, int call,
                    const MmditConditioning& conditioning, const TensorView& out) const {
  const MmditConfig& c = config_;
  const std::int64_t R = conditioning.rows, D = c.width, H = c.heads, head = c.head_width;
  const std::int64_t rows = latents.dim(2) / 2, columns = latents.dim(3) / 2;
  const std::int64_t N = rows * columns, T = conditioning.context.dim(1), S = N + T;
  OCTAVO_CHECK(rows <= c.position_side && columns <= c.position_side, "{} x {} patches exceed the position table of {}",
               rows, columns, c.position_side);
  auto& arena = context.arena();
  device::Arena::Scope scope(arena);
  // Residual streams in f32; what feeds products in the activation dtype. The joint buffers hold image tokens first.
  const TensorView image = arena.take(DType::kF32, Shape{R, N, D});
  const TensorView text = arena.take(DType::kF32, Shape{R, T, D});
  const TensorView image_in = arena.take(dtype_, Shape{R, N, D});
  const TensorView text_in = arena.take(dtype_, Shape{R, T, D});
  const TensorView image_update = arena.take(dtype_, Shape{R, N, D});
  const TensorView text_update = arena.take(dtype_, Shape{R, T, D});
  const TensorView q = arena.take(dtype_, Shape{R, H, S, head});
  const TensorView k = arena.take(dtype_, Shape{R, H, S, head});
  const TensorView v = arena.take(dtype_, Shape{R, H, S, head});
  const TensorView attended = arena.take(dtype_, Shape{R, S, D});
  // The widest temporaries, used one after the other: qkv [.., 3D] and the feed-forward's hidden [.., 4D].
  const TensorView wide = arena.take(dtype_, Shape{R * std::max(N, T) * 4 * D});
  const auto wide_as = [&](std::int64_t tokens, std::int64_t features) {
    return TensorView(wide.data(), wide.dtype(), Shape{R, tokens, features});
  };

  {
    device::Arena::Scope patches_scope(arena);
    const TensorView patches = arena.take(dtype_, Shape{R, N, 4 * c.in_channels});
    ops::patchify(context, {.latents = latents, .out = patches});
    patch_.forward(context, patches, image);
  }
  ops::add_positions(context, {.x = image, .table = positions_, .rows = static_cast<int>(rows),
                               .columns = static_cast<int>(columns)});
  context.tap(label_ + ".pos_embed", image);
  ops::cast(context, {.x = conditioning.context, .out = text});

  const auto modulation_of = [&](std::int64_t column) { return Modulation(conditioning, call, column, D); };
  const Modulation first = modulation_of(blocks_.front().image.modulation_column);
  ops::layer_norm(context, {.x = image, .shift = first.vector(kShiftAttention), .scale = first.vector(kScaleAttention),
                            .eps = kNormEps, .out = image_in});
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const Block& block = blocks_[i];
    const Modulation image_mod = modulation_of(block.image.modulation_column);
    const Modulation text_mod = modulation_of(block.text.modulation_column);
    if (i == 0 || block.last) {
      // Elsewhere the seam below has done it; the last block's text modulation has another shape, so it is done here.
      ops::layer_norm(context, {.x = text,
                                .shift = text_mod.vector(block.last ? kContinuousShift : kShiftAttention),
                                .scale = text_mod.vector(block.last ? kContinuousScale : kScaleAttention),
                                .eps = kNormEps, .out = text_in});
    }
    const TensorView image_qkv = wide_as(N, 3 * D);
    block.image.qkv.forward(context, image_in, image_qkv);
    ops::qkv_split_norm(context, {.qkv = image_qkv, .q_weight = block.image.q_norm.view,
                                  .k_weight = block.image.k_norm.view, .eps = kNormEps, .q = q.slice(2, 0, N),
                                  .k = k.slice(2, 0, N), .v = v.slice(2, 0, N)});
    const TensorView text_qkv = wide_as(T, (block.last ? 2 : 3) * D);
    block.text.qkv.forward(context, text_in, text_qkv);
    ops::qkv_split_norm(context, {.qkv = text_qkv,
                                  .q_weight = block.last ? TensorView() : block.text.q_norm.view,
                                  .k_weight = block.text.k_norm.view, .eps = kNormEps,
                                  .q = block.last ? TensorView() : q.slice(2, N, T), .k = k.slice(2, N, T),
                                  .v = v.slice(2, N, T)});
    const std::int64_t queries = block.last ? N : S;  // the last block's text rows would be thrown away
    ops::attention(context, {.q = q.slice(2, 0, queries), .k = k, .v = v,
                             .score_factor = 1.0f / std::sqrt(static_cast<float>(head)),
                             .out = attended.slice(1, 0, queries)});

    block.image.out.forward(context, attended.slice(1, 0, N), image_update);
    ops::gate_residual_norm(context, {.x = image, .y = image_update, .gate = image_mod.vector(kGateAttention),
                                      .shift = image_mod.vector(kShiftFeed), .scale = image_mod.vector(kScaleFeed),
                                      .eps = kNormEps, .out = image_in});
    const TensorView image_hidden = wide_as(N, 4 * D);
    block.image.fc1.forward(context, image_in, image_hidden, {.activation = ops::Activation::kGeluTanh});
    block.image.fc2.forward(context, image_hidden, image_update);
    // Into the next block's attention, or the final norm.
    const Modulation next =
        modulation_of(block.last ? final_column_ : blocks_[i + 1].image.modulation_column);
    ops::gate_residual_norm(context, {.x = image, .y = image_update, .gate = image_mod.vector(kGateFeed),
                                      .shift = next.vector(block.last ? kContinuousShift : kShiftAttention),
                                      .scale = next.vector(block.last ? kContinuousScale : kScaleAttention),
                                      .eps = kNormEps, .out = image_in});
    if (context.tapped()) context.tap(label_ + ".transformer_blocks." + std::to_string(i) + ".image", image);
    if (block.last) break;

    block.text.out.forward(context, attended.slice(1, N, T), text_update);
    ops::gate_residual_norm(context, {.x = text, .y = text_update, .gate = text_mod.vector(kGateAttention),
                                      .shift = text_mod.vector(kShiftFeed), .scale = text_mod.vector(kScaleFeed),
                                      .eps = kNormEps, .out = text_in});
    const TensorView text_hidden = wide_as(T, 4 * D);
    block.text.fc1.forward(context, text_in, text_hidden, {.activation = ops::Activation::kGeluTanh});
    block.text.fc2.forward(context, text_hidden, text_update);
    if (blocks_[i + 1].last) {
      ops::gate_residual_norm(context, {.x = text, .y = text_update, .gate = text_mod.vector(kGateFeed)});
    } else {
      const Modulation next_text = modulation_of(blocks_[i + 1].text.modulation_column);
      ops::gate_residual_norm(context, {.x = text, .y = text_update, .gate = text_mod.vector(kGateFeed),
                                        .shift = next_text.vector(kShiftAttention),
                                        .scale = next_text.vector(kScaleAttention), .eps = kNormEps, .out = text_in});
    }
    if (context.tapped()) context.tap(label_ + ".transformer_blocks." + std::to_string(i) + ".text", text);
  }
  const TensorView tokens = arena.take(DType::kF32, Shape{R, N, 4 * c.out_channels});
  proj_out_.forward(context, image_in, tokens);
  ops::unpatchify(context, {.tokens = tokens, .out = out});
  context.tap(label_ + ".velocity", out);
}

}  // namespace octavo::models
