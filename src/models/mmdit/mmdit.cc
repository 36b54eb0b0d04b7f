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

/// Residual streams in residual_dtype_; what feeds products in the activation dtype, or in codes of 8 bits where the
/// device's norms write them. The joint buffers hold image tokens first. Between its joint attentions a block's text
/// tokens go their own way, on the context's side stream where it has one.
struct Mmdit::Step {
  const Mmdit& model;
  ops::ExecutionContext& context;
  const MmditConditioning& conditioning;
  int call;
  std::int64_t R, N, T;                 // rows, image tokens, text tokens
  ops::ExecutionContext& text_context;  // `context`, or the one beside it
  TensorView image, text;
  TensorView image_in, text_in, own_in;  // memory of modulated inputs of products; own_in of dual blocks
  TensorView image_update, text_update;
  ops::AttentionOperands operands;
  TensorView q, k, v;                // [R, H, N + T, head], as `operands` says
  TensorView attended;               // [R, N + T, D], or memory of its codes
  TensorView image_wide, text_wide;  // qkv [.., 3D] and the feed-forward's hidden [.., 4D], one after the other

  Step(const Mmdit& of, ops::ExecutionContext& where, const MmditConditioning& given, int group, std::int64_t tokens)
      : model(of),
        context(where),
        conditioning(given),
        call(group),
        R(given.rows),
        N(tokens),
        T(given.context.dim(1)),
        text_context(where.side() == nullptr || where.tapped() || where.op_observer() != nullptr ? where
                                                                                                 : *where.side()) {
    const MmditConfig& c = model.config_;
    const std::int64_t D = c.width, H = c.heads, head = c.head_width, S = N + T;
    const DType dtype = model.dtype_;
    auto& arena = context.arena();
    image = arena.take(model.residual_dtype_, Shape{R, N, D});
    text = arena.take(model.residual_dtype_, Shape{R, T, D});
    image_in = arena.take(dtype, Shape{R, N, D});
    text_in = arena.take(dtype, Shape{R, T, D});
    if (!c.dual_layers.empty()) own_in = arena.take(dtype, Shape{R, N, D});
    image_update = arena.take(dtype, Shape{R, N, D});
    text_update = arena.take(dtype, Shape{R, T, D});
    operands = ops::plan_attention_operands(context, dtype, head, 1.0f / std::sqrt(static_cast<float>(head)), c.qk_norm,
                                            model.attention_codes_);
    q = arena.take(operands.q, Shape{R, H, S, head});
    k = arena.take(operands.k, Shape{R, H, S, head});
    v = arena.take(operands.v, Shape{R, H, S, head});
    attended = arena.take(dtype, Shape{R, S, D});
    if (lanes_part()) {
      image_wide = arena.take(dtype, Shape{R * N * 4 * D});
      text_wide = arena.take(dtype, Shape{R * T * 4 * D});
    } else {
      image_wide = text_wide = arena.take(dtype, Shape{R * std::max(N, T) * 4 * D});
    }
  }

  /// What a stream works on.
  struct Lane {
    ops::ExecutionContext& context;
    const TensorView& stream;
    const TensorView& in;
    const TensorView& update;
    const TensorView& wide;
    std::int64_t tokens;
    std::int64_t offset;  // of its rows in the joint buffers
  };
  Lane image_lane() const { return {context, image, image_in, image_update, image_wide, N, 0}; }
  Lane text_lane() const { return {text_context, text, text_in, text_update, text_wide, T, N}; }
  bool lanes_part() const { return &text_context != &context; }
  void fork() const {
    if (lanes_part() && !context.dry_run()) context.stream().fork();
  }
  void join() const {
    if (lanes_part() && !context.dry_run()) context.stream().join();
  }

  TensorView wide_as(const Lane& lane, std::int64_t features) const {
    return TensorView(lane.wide.data(), lane.wide.dtype(), Shape{R, lane.tokens, features});
  }
  /// Where the norm before `linear` writes, in the memory of `buffer`.
  layers::LinearInput input_of(const Lane& lane, const layers::Linear& linear, const TensorView& buffer) const {
    return linear.input_in(lane.context, buffer, Shape{R, lane.tokens, model.config_.width}, model.dtype_);
  }
  Modulation modulation(std::int64_t column) const {
    return Modulation(conditioning, call, column, model.config_.width);
  }

  /// A norm's modulation and where it writes: what leads into the next part of a stream.
  struct Into {
    TensorView shift, scale;
    layers::LinearInput out;
    ops::SecondModulation second = {};
  };
  /// Into a block's attentions, or the final norm when there is no more block.
  Into image_into(const Block* block) const {
    const Lane lane = image_lane();
    if (block == nullptr) {
      const Modulation last = modulation(model.final_column_);
      return {last.vector(kContinuousShift), last.vector(kContinuousScale), input_of(lane, model.proj_out_, lane.in)};
    }
    const Modulation m = modulation(block->image.modulation_column);
    Into into{m.vector(kShiftAttention), m.vector(kScaleAttention),
              input_of(lane, block->image.attention.qkv, lane.in)};
    if (block->dual) {
      const layers::LinearInput own = own_input(*block);
      into.second = {.shift = m.vector(kShiftOwn),
                     .scale = m.vector(kScaleOwn),
                     .out = own.out(),
                     .dequant_scale = own.out_scale(),
                     .quant_scale = own.quant_scale};
    }
    return into;
  }
  layers::LinearInput own_input(const Block& block) const {
    return input_of(image_lane(), block.image.own_attention.qkv, own_in);
  }
  Into text_into(const Block& block) const {
    const Lane lane = text_lane();
    const Modulation m = modulation(block.text.modulation_column);
    layers::LinearInput out = input_of(lane, block.text.attention.qkv, lane.in);
    if (block.last) return {m.vector(kContinuousShift), m.vector(kContinuousScale), out};
    return {m.vector(kShiftAttention), m.vector(kScaleAttention), out};
  }

  /// The first norms of both streams; the others are fused with the end of the block before.
  void enter(const Block* first) const {
    enter(image_lane(), image_into(first));
    if (first != nullptr) enter(text_lane(), text_into(*first));
  }
  void enter(const Lane& lane, const Into& into) const {
    ops::layer_norm(lane.context, {.x = lane.stream,
                                   .shift = into.shift,
                                   .scale = into.scale,
                                   .eps = kNormEps,
                                   .out = into.out.out(),
                                   .out_dequant_scale = into.out.out_scale(),
                                   .out_quant_scale = into.out.quant_scale,
                                   .second = into.second});
  }

  /// Tokens `in` become rows [offset, offset + tokens) of the joint q, k and v; no q in the last block's text.
  void project(const Lane& lane, const Attention& attention, const layers::LinearInput& in, bool with_q) const {
    const TensorView qkv = wide_as(lane, (with_q ? 3 : 2) * model.config_.width);
    attention.qkv.forward(lane.context, in, qkv);
    ops::qkv_split_norm(lane.context, {.qkv = qkv,
                                       .q_weight = with_q ? attention.q_norm.view : TensorView(),
                                       .k_weight = attention.k_norm.view,
                                       .eps = kNormEps,
                                       .q_factor = operands.q_factor,
                                       .k_factor = operands.k_factor,
                                       .q = with_q ? q.slice(2, lane.offset, lane.tokens) : TensorView(),
                                       .k = k.slice(2, lane.offset, lane.tokens),
                                       .v = v.slice(2, lane.offset, lane.tokens)});
  }
  /// Where attention puts what `out` reads if it may: the codes of the image's tokens lie at the beginning of
  /// `attended`, those of the text's behind them, so that each product reads rows without gaps.
  layers::LinearInput attended_codes(const layers::Linear& out, bool of_text) const {
    const std::int64_t D = model.config_.width, tokens = of_text ? T : N, begin = of_text ? R * N * D : 0;
    auto* memory = static_cast<std::byte*>(attended.data());
    if (memory != nullptr) memory += begin;  // null in a dry run
    const TensorView buffer(memory, DType::kI8, Shape{static_cast<std::int64_t>(attended.byte_count()) - begin});
    return out.input_in(context, buffer, Shape{R, tokens, D}, model.dtype_);
  }
  /// Whether a block's attentions write codes: if all that read them take E4M3 with scales that are known beforehand,
  /// for attention measures none; all, because the text's codes must outlive a dual block's second attention.
  bool attends_into_codes(const Block& block) const {
    const auto takes = [this](const layers::Linear& out, bool of_text) {
      const layers::LinearInput in = attended_codes(out, of_text);
      return in.quant_scale.defined() && in.out().dtype() == DType::kE4M3;
    };
    return operands.writes_codes && takes(block.image.attention.out, false) &&
           (block.last || takes(block.text.attention.out, true)) &&
           (!block.dual || takes(block.image.own_attention.out, false));
  }
  /// What the products behind an attention read: of the image's tokens, and of the text's, which follow them.
  struct Attended {
    layers::LinearInput image, text;
  };
  /// Image rows attend to rows [0, keys); text rows too where `text_out`, the product that reads them, is given.
  Attended attend(const layers::Linear& image_out, const layers::Linear* text_out, std::int64_t keys,
                  bool into_codes) const {
    const auto plain_rows = [this](std::int64_t begin, std::int64_t count) {
      return layers::LinearInput{.plain = attended.slice(1, begin, count), .codes = {}, .quant_scale = {}};
    };
    Attended result;
    if (!into_codes) {
      const std::int64_t queries = text_out == nullptr ? N : N + T;
      attend_rows(context, 0, queries, keys, plain_rows(0, queries));
      result.image = plain_rows(0, N);
      if (text_out != nullptr) result.text = plain_rows(N, T);
      return result;
    }
    // Each stream's codes have a scale of their own: an attention each, side by side.
    result.image = attended_codes(image_out, false);
    attend_rows(context, 0, N, keys, result.image);
    if (text_out != nullptr) {
      result.text = attended_codes(*text_out, true);
      attend_rows(text_context, N, T, keys, result.text);
    }
    return result;
  }
  /// Rows [begin, begin + count) attend to rows [0, keys).
  void attend_rows(ops::ExecutionContext& where, std::int64_t begin, std::int64_t count, std::int64_t keys,
                   const layers::LinearInput& into) const {
    ops::attention(where, {.q = q.slice(2, begin, count),
                           .k = k.slice(2, 0, keys),
                           .v = v.slice(2, 0, keys),
                           .score_factor = operands.score_factor,
                           .out = into.out(),
                           .out_quant_scale = into.quant_scale});
  }
  /// From what attention gave to the end of the block: out projection, residual, feed-forward, residual, and the norm
  /// that leads out of the block.
  void finish(const Lane& lane, const Stream& stream, const layers::Linear& out, const layers::LinearInput& attention,
              int attention_gate, const Into& into) const {
    const Modulation m = modulation(stream.modulation_column);
    out.forward(lane.context, attention, lane.update);
    const layers::LinearInput in = input_of(lane, stream.fc1, lane.in);
    ops::gate_residual_norm(lane.context, {.x = lane.stream,
                                           .y = lane.update,
                                           .gate = m.vector(attention_gate),
                                           .shift = m.vector(kShiftFeed),
                                           .scale = m.vector(kScaleFeed),
                                           .eps = kNormEps,
                                           .out = in.out(),
                                           .out_dequant_scale = in.out_scale(),
                                           .out_quant_scale = in.quant_scale});
    const layers::LinearInput hidden = stream.fc1.output_for(
        stream.fc2, lane.context, lane.wide, Shape{R, lane.tokens, 4 * model.config_.width}, lane.wide.dtype());
    stream.fc1.forward(lane.context, in, hidden, {.activation = ops::Activation::kGeluTanh});
    stream.fc2.forward(lane.context, hidden, lane.update);
    ops::gate_residual_norm(lane.context, {.x = lane.stream,
                                           .y = lane.update,
                                           .gate = m.vector(kGateFeed),
                                           .shift = into.shift,
                                           .scale = into.scale,
                                           .eps = kNormEps,
                                           .out = into.out.out(),
                                           .out_dequant_scale = into.out.out_scale(),
                                           .out_quant_scale = into.out.quant_scale,
                                           .second = into.second});
  }

  /// One block; `next` is the one that follows, null = the final norm.
  void run(const Block& block, const Block* next) const {
    const Lane image_way = image_lane(), text_way = text_lane();
    project(image_way, block.image.attention, input_of(image_way, block.image.attention.qkv, image_in), true);
    project(text_way, block.text.attention, input_of(text_way, block.text.attention.qkv, text_in), !block.last);
    join();
    const Attention& joint = block.image.attention;
    const bool into_codes = attends_into_codes(block);
    if (into_codes) fork();
    // The last block's text rows would be thrown away.
    const Attended joined = attend(joint.out, block.last ? nullptr : &block.text.attention.out, N + T, into_codes);
    if (into_codes) join();  // both streams go on to write q, k and v
    fork();
    if (next != nullptr) {  // else nobody reads the text any more
      finish(text_way, block.text, block.text.attention.out, joined.text, kGateAttention, text_into(*next));
      tap(block, ".text", text);
    }
    if (block.dual) {
      // The image tokens once more among themselves, from what they were before the joint attention. The text rows of
      // `attended` stay for the text stream, its keys and values do not: nobody reads them any more.
      const Modulation m = modulation(block.image.modulation_column);
      joint.out.forward(context, joined.image, image_update);
      ops::gate_residual_norm(context, {.x = image, .y = image_update, .gate = m.vector(kGateAttention)});
      project(image_way, block.image.own_attention, own_input(block), true);
      const layers::Linear& own_out = block.image.own_attention.out;
      finish(image_way, block.image, own_out, attend(own_out, nullptr, N, into_codes).image, kGateOwn,
             image_into(next));
    } else {
      finish(image_way, block.image, joint.out, joined.image, kGateAttention, image_into(next));
    }
    tap(block, ".image", image);
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
  ops::add_positions(context, {.x = step.image,
                               .table = positions_.view,
                               .rows = static_cast<int>(rows),
                               .columns = static_cast<int>(columns)});
  if (context.tapped()) context.tap(label_ + ".pos_embed", step.image);  // a step allocates nothing, names neither
  ops::cast(context, {.x = conditioning.context, .out = step.text});

  const Block* block = next_block(0, skip_layers);
  step.fork();
  step.enter(block);
  while (block != nullptr) {
    const Block* next = next_block(static_cast<std::size_t>(block - blocks_.data()) + 1, skip_layers);
    step.run(*block, next);
    block = next;
  }
  step.join();
  const TensorView tokens = arena.take(DType::kF32, Shape{step.R, N, 4 * c.out_channels});
  proj_out_.forward(context, step.image_into(nullptr).out, tokens);
  ops::unpatchify(context, {.tokens = tokens, .out = out});
  if (context.tapped()) context.tap(label_ + ".velocity", out);
}

}  // namespace octavo::models
