#include "pipeline/text_conditioning.h"

#include "sampling/guidance.h"

namespace octavo::pipeline {
namespace {

constexpr int kClipLength = 77;
constexpr std::size_t kCacheEntries = 64;

}  // namespace

std::vector<TextTokens> TextConditioner::tokenize(const generation::GenerationRequest& request) const {
  const auto branch = [&](const std::string& prompt) {
    TextTokens tokens;
    tokens.clip_l = model_.tokenizer_l.encode_padded(prompt, kClipLength);
    tokens.clip_g = model_.tokenizer_g.encode_padded(prompt, kClipLength);
    tokens.t5 = model_.encoder_t5 ? model_.tokenizer_t5->encode_padded(prompt, request.t5_length)
                                  : std::vector<std::int32_t>(static_cast<std::size_t>(request.t5_length), 0);
    return tokens;
  };
  std::vector<TextTokens> branches;
  if (sampling::Guidance{static_cast<float>(request.guidance_scale)}.enabled()) {
    branches.push_back(branch(request.negative_prompt));
  }
  branches.push_back(branch(request.prompt));
  return branches;
}

Result<EncodedText> TextConditioner::encode(ops::ExecutionContext& context, const TextTokens& tokens) {
  for (auto entry = cache_.begin(); entry != cache_.end(); ++entry) {
    if (entry->tokens == tokens) {
      cache_.splice(cache_.begin(), cache_, entry);
      return cache_.front().text;
    }
  }
  device::Device& device = context.device();
  device::Stream& stream = context.stream();
  const std::int64_t width = model_.mmdit.config().context_width, pooled_width = model_.mmdit.config().pooled_width;
  const std::int64_t rows = tokens.context_rows();
  const auto floats = static_cast<std::size_t>(rows * width + pooled_width);
  std::vector<std::int32_t> ids = tokens.clip_l;
  ids.insert(ids.end(), tokens.clip_g.begin(), tokens.clip_g.end());
  ids.insert(ids.end(), tokens.t5.begin(), tokens.t5.end());

  Entry entry;
  entry.tokens = tokens;
  OCTAVO_ASSIGN_OR_RETURN(entry.buffer, device.allocate(floats * sizeof(float)));
  OCTAVO_ASSIGN_OR_RETURN(const device::Buffer id_buffer, device.allocate(ids.size() * sizeof(std::int32_t)));
  auto* values = static_cast<float*>(entry.buffer.data());
  entry.text.context = TensorView(values, DType::kF32, Shape{rows, width});
  entry.text.pooled = TensorView(values + rows * width, DType::kF32, Shape{pooled_width});
  const std::vector<float> zeros(floats, 0.0f);  // channels that no encoder fills, and all of T5 when there is none
  device.copy_to_device(stream, entry.buffer.data(), zeros.data(), entry.buffer.byte_count());
  device.copy_to_device(stream, id_buffer.data(), ids.data(), ids.size() * sizeof(std::int32_t));
  encode_into(context, tokens, TensorView(id_buffer.data(), DType::kI32, Shape{static_cast<std::int64_t>(ids.size())}),
              entry.text);
  stream.synchronize();
  cache_.push_front(std::move(entry));
  if (cache_.size() > kCacheEntries) cache_.pop_back();
  return cache_.front().text;
}

void TextConditioner::plan(ops::ExecutionContext& context, const TextTokens& tokens) const {
  OCTAVO_CHECK(context.dry_run(), "plan outside a dry run");
  const auto dry = [](DType dtype, Shape shape) { return TensorView(static_cast<void*>(nullptr), dtype, shape); };
  const auto ids = static_cast<std::int64_t>(tokens.clip_l.size() + tokens.clip_g.size() + tokens.t5.size());
  encode_into(context, tokens, dry(DType::kI32, Shape{ids}),
              {dry(DType::kF32, Shape{tokens.context_rows(), model_.mmdit.config().context_width}),
               dry(DType::kF32, Shape{model_.mmdit.config().pooled_width})});
}

/// Context rows: CLIP-L beside CLIP-G over the first 77, T5 below; columns that CLIP leaves free stay zero.
void TextConditioner::encode_into(ops::ExecutionContext& context, const TextTokens& tokens, const TensorView& ids,
                                  const EncodedText& target) const {
  const auto t5_length = static_cast<std::int64_t>(tokens.t5.size());
  const TensorView all = target.context.reshape(Shape{1, target.context.dim(0), target.context.dim(1)});
  const TensorView pooled = target.pooled.reshape(Shape{1, target.pooled.dim(0)});
  const auto ids_at = [&](std::int64_t begin, std::int64_t count) {
    return ids.slice(0, begin, count).reshape(Shape{1, count});
  };
  const std::int64_t width_l = model_.encoder_l.config().width, width_g = model_.encoder_g.config().width;
  const std::int64_t pooled_l = model_.encoder_l.config().projection, pooled_g = model_.encoder_g.config().projection;
  const TensorView clip = all.slice(1, 0, kClipLength);
  model_.encoder_l.encode(context, ids_at(0, kClipLength), {model_.encoder_l.eos_row(tokens.clip_l)},
                          clip.slice(2, 0, width_l), pooled.slice(1, 0, pooled_l));
  model_.encoder_g.encode(context, ids_at(kClipLength, kClipLength), {model_.encoder_g.eos_row(tokens.clip_g)},
                          clip.slice(2, width_l, width_g), pooled.slice(1, pooled_l, pooled_g));
  if (model_.encoder_t5) {
    model_.encoder_t5->encode(context, ids_at(2 * kClipLength, t5_length), all.slice(1, kClipLength, t5_length));
  }
}

}  // namespace octavo::pipeline
