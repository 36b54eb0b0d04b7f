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

// Chunk order of a six-fold modulation (diffusers AdaLayerNormZero), and what a dual block's nine-fold one adds
// (SD35AdaLayerNormZeroX).
constexpr int kShiftAttention = 0, kScaleAttention = 1, kGateAttention = 2, kShiftFeed = 3, kScaleFeed = 4,
              kGateFeed = 5;
constexpr int kShiftOwn = 6, kScaleOwn = 7, kGateOwn = 8;
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

/// Residual streams in f32; what feeds products in the activation dtype. The joint buffers hold image tokens first.
struct Mmdit::Step {
  const Mmdit& model;
  ops::ExecutionContext& context;
  const MmditConditioning& conditioning;
  int call;
  std::int64_t R, N, T;  // rows, image tokens, text tokens
  TensorView image, text;
  TensorView image_in, text_in, own_in;  // modulated: into products; own_in of dual blocks
  TensorView image_update, text_update;
  TensorView q, k, v;  // [R, H, N + T, head]
  TensorView attended;
  TensorView wide;  // qkv [.., 3D] and the feed-forward's hidden [.., 4D], one after the other

  Step(const Mmdit& of, ops::ExecutionContext& where, const MmditConditioning& given, int group, std::int64_t tokens)
      : model(of), context(where), conditioning(given), call(group), R(given.rows), N(tokens), T(given.context.dim(1)) {
    const MmditConfig& c = model.config_;
    const std::int64_t D = c.width, H = c.heads, head = c.head_width, S = N + T;
    const DType dtype = model.dtype_;
    auto& arena = context.arena();
    image = arena.take(DType::kF32, Shape{R, N, D});
    text = arena.take(DType::kF32, Shape{R, T, D});
    image_in = arena.take(dtype, Shape{R, N, D});
    text_in = arena.take(dtype, Shape{R, T, D});
    if (!c.dual_layers.empty()) own_in = arena.take(dtype, Shape{R, N, D});
    image_update = arena.take(dtype, Shape{R, N, D});
    text_update = arena.take(dtype, Shape{R, T, D});
    q = arena.take(dtype, Shape{R, H, S, head});
    k = arena.take(dtype, Shape{R, H, S, head});
    v = arena.take(dtype, Shape{R, H, S, head});
    attended = arena.take(dtype, Shape{R, S, D});
    wide = arena.take(dtype, Shape{R * std::max(N, T) * 4 * D});
  }

  TensorView wide_as(std::int64_t tokens, std::int64_t features) const {
    return TensorView(wide.data(), wide.dtype(), Shape{R, tokens, features});
  }
  Modulation modulation(std::int64_t column) const {
    return Modulation(conditioning, call, column, model.config_.width);
  }

  /// A norm's modulation: what leads into the next part of a stream.
  struct Into {
    TensorView shift, scale;
    ops::SecondModulation second = {};
  };
  /// Into a block's attentions, or the final norm when there is no more block.
  Into image_into(const Block* block) const {
    if (block == nullptr) {
      const Modulation last = modulation(model.final_column_);
      return {last.vector(kContinuousShift), last.vector(kContinuousScale)};
    }
    const Modulation m = modulation(block->image.modulation_column);
    Into into{m.vector(kShiftAttention), m.vector(kScaleAttention)};
    if (block->dual) into.second = {.shift = m.vector(kShiftOwn), .scale = m.vector(kScaleOwn), .out = own_in};
    return into;
  }
  Into text_into(const Block& block) const {
    const Modulation m = modulation(block.text.modulation_column);
    if (block.last) return {m.vector(kContinuousShift), m.vector(kContinuousScale)};
    return {m.vector(kShiftAttention), m.vector(kScaleAttention)};
  }

  /// The first norms of both streams; the others are fused with the end of the block before.
  void enter(const Block* first) const {
    const Into into = image_into(first);
    ops::layer_norm(context, {.x = image,
                              .shift = into.shift,
                              .scale = into.scale,
                              .eps = kNormEps,
                              .out = image_in,
                              .second = into.second});
    if (first == nullptr) return;
    const Into text_first = text_into(*first);
    ops::layer_norm(context,
                    {.x = text, .shift = text_first.shift, .scale = text_first.scale, .eps = kNormEps, .out = text_in});
  }

  /// Tokens `in` become rows [offset, offset + tokens) of the joint q, k and v; no q in the last block's text.
  void project(const Attention& attention, const TensorView& in, std::int64_t offset, bool with_q) const {
    const std::int64_t tokens = in.dim(1);
    const TensorView qkv = wide_as(tokens, (with_q ? 3 : 2) * model.config_.width);
    attention.qkv.forward(context, in, qkv);
    ops::qkv_split_norm(context, {.qkv = qkv,
                                  .q_weight = with_q ? attention.q_norm.view : TensorView(),
                                  .k_weight = attention.k_norm.view,
                                  .eps = kNormEps,
                                  .q = with_q ? q.slice(2, offset, tokens) : TensorView(),
                                  .k = k.slice(2, offset, tokens),
                                  .v = v.slice(2, offset, tokens)});
  }
  /// Rows [0, queries) attend to rows [0, keys).
  void attend(std::int64_t queries, std::int64_t keys) const {
    ops::attention(context, {.q = q.slice(2, 0, queries),
                             .k = k.slice(2, 0, keys),
                             .v = v.slice(2, 0, keys),
                             .score_factor = 1.0f / std::sqrt(static_cast<float>(model.config_.head_width)),
                             .out = attended.slice(1, 0, queries)});
  }
  void feed_forward(const Stream& stream, const TensorView& in, const TensorView& update) const {
    const TensorView hidden = wide_as(in.dim(1), 4 * model.config_.width);
    stream.fc1.forward(context, in, hidden, {.activation = ops::Activation::kGeluTanh});
    stream.fc2.forward(context, hidden, update);
  }
  /// stream += gate * update, and the norm in front of the stream's feed-forward.
  void into_feed_forward(const TensorView& stream, const TensorView& update, const Modulation& m, int gate,
                         const TensorView& out) const {
    ops::gate_residual_norm(context, {.x = stream,
                                      .y = update,
                                      .gate = m.vector(gate),
                                      .shift = m.vector(kShiftFeed),
                                      .scale = m.vector(kScaleFeed),
                                      .eps = kNormEps,
                                      .out = out});
  }
  /// stream += gate * update, and the norm that leads out of the block.
  void leave(const TensorView& stream, const TensorView& update, const Modulation& m, const Into& into,
             const TensorView& out) const {
    ops::gate_residual_norm(context, {.x = stream,
                                      .y = update,
                                      .gate = m.vector(kGateFeed),
                                      .shift = into.shift,
                                      .scale = into.scale,
                                      .eps = kNormEps,
                                      .out = out,
                                      .second = into.second});
  }

  /// One block; `next` is the one that follows, null = the final norm.
  void run(const Block& block, const Block* next) const {
    const Modulation image_mod = modulation(block.image.modulation_column);
    const Modulation text_mod = modulation(block.text.modulation_column);
    project(block.image.attention, image_in, 0, true);
    project(block.text.attention, text_in, N, !block.last);
    attend(block.last ? N : N + T, N + T);  // the last block's text rows would be thrown away
    const TensorView attended_image = attended.slice(1, 0, N);
    block.image.attention.out.forward(context, attended_image, image_update);
    if (block.dual) {
      // The image tokens once more among themselves, from what they were before the joint attention. The text rows of
      // `attended` stay for the text stream below.
      ops::gate_residual_norm(context, {.x = image, .y = image_update, .gate = image_mod.vector(kGateAttention)});
      project(block.image.own_attention, own_in, 0, true);
      attend(N, N);
      block.image.own_attention.out.forward(context, attended_image, image_update);
    }
    into_feed_forward(image, image_update, image_mod, block.dual ? kGateOwn : kGateAttention, image_in);
    feed_forward(block.image, image_in, image_update);
    leave(image, image_update, image_mod, image_into(next), image_in);
    tap(block, ".image", image);
    if (next == nullptr) return;  // nobody reads the text any more

    block.text.attention.out.forward(context, attended.slice(1, N, T), text_update);
    into_feed_forward(text, text_update, text_mod, kGateAttention, text_in);
    feed_forward(block.text, text_in, text_update);
    leave(text, text_update, text_mod, text_into(*next), text_in);
    tap(block, ".text", text);
  }

  void tap(const Block& block, const char* stream, const TensorView& value) const {
    if (!context.tapped()) return;
    const auto index = &block - model.blocks_.data();
    context.tap(model.label_ + ".transformer_blocks." + std::to_string(index) + stream, value);
  }
};

const Mmdit::Block* Mmdit::next_block(std::size_t index, std::span<const int> skip_layers) const {
  while (index < blocks_.size() &&
         std::find(skip_layers.begin(), skip_layers.end(), static_cast<int>(index)) != skip_layers.end()) {
    ++index;
  }
  return index < blocks_.size() ? &blocks_[index] : nullptr;
}

void Mmdit::predict(ops::ExecutionContext& context, const TensorView& latents, int call,
                    const MmditConditioning& conditioning, const TensorView& out,
                    std::span<const int> skip_layers) const {
  const MmditConfig& c = config_;
  const std::int64_t rows = latents.dim(2) / 2, columns = latents.dim(3) / 2, N = rows * columns;
  OCTAVO_CHECK(rows <= c.position_side && columns <= c.position_side, "{} x {} patches exceed the position table of {}",
               rows, columns, c.position_side);
  auto& arena = context.arena();
  device::Arena::Scope scope(arena);
  const Step step(*this, context, conditioning, call, N);
  {
    device::Arena::Scope patches_scope(arena);
    const TensorView patches = arena.take(dtype_, Shape{step.R, N, 4 * c.in_channels});
    ops::patchify(context, {.latents = latents, .out = patches});
    patch_.forward(context, patches, step.image);
  }
  ops::add_positions(
      context,
      {.x = step.image, .table = positions_, .rows = static_cast<int>(rows), .columns = static_cast<int>(columns)});
  if (context.tapped()) context.tap(label_ + ".pos_embed", step.image);  // a step allocates nothing, names neither
  ops::cast(context, {.x = conditioning.context, .out = step.text});

  const Block* block = next_block(0, skip_layers);
  step.enter(block);
  while (block != nullptr) {
    const Block* next = next_block(static_cast<std::size_t>(block - blocks_.data()) + 1, skip_layers);
    step.run(*block, next);
    block = next;
  }
  const TensorView tokens = arena.take(DType::kF32, Shape{step.R, N, 4 * c.out_channels});
  proj_out_.forward(context, step.image_in, tokens);
  ops::unpatchify(context, {.tokens = tokens, .out = out});
  if (context.tapped()) context.tap(label_ + ".velocity", out);
}

}  // namespace octavo::models
