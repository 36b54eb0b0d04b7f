#include "pipeline/text_conditioning.h"

#include <algorithm>
#include <span>

#include "base/log.h"
#include "sampling/guidance.h"

namespace octavo::pipeline {
namespace {

using text::kClipChunkLength;
using text::PromptSyntax;
using text::WeightedIds;

constexpr std::size_t kCacheEntries = 64;
constexpr int kTrainedClipLayer = 2;

bool any_weighted(const std::vector<WeightedIds>& chunks) {
  return std::any_of(chunks.begin(), chunks.end(), [](const WeightedIds& chunk) { return chunk.weighted(); });
}

/// A context on the host: rows of `width` floats.
class HostRows {
 public:
  HostRows(ops::ExecutionContext& context, const TensorView& rows)
      : width_(static_cast<std::size_t>(rows.dim(1))), values_(static_cast<std::size_t>(rows.element_count())) {
    context.device().copy_to_host(context.stream(), values_.data(), rows.data(), values_.size() * sizeof(float));
    context.stream().synchronize();
  }
  /// Columns [begin, end) of a row.
  std::span<float> columns(std::size_t row, std::size_t begin, std::size_t end) {
    return std::span(values_).subspan(row * width_ + begin, end - begin);
  }
  const std::vector<float>& values() const { return values_; }

 private:
  std::size_t width_;
  std::vector<float> values_;
};

/// The columns of the context that one CLIP encoder fills, and its chunks.
struct ClipColumns {
  std::size_t begin, end;
  const std::vector<WeightedIds>& chunks;
};

void weigh_a1111(HostRows& rows, std::span<const ClipColumns> encoders, std::size_t chunk_count) {
  for (std::size_t chunk = 0; chunk < chunk_count; ++chunk) {
    const std::size_t first = chunk * kClipChunkLength;
    const auto sum = [&] {
      double total = 0;
      for (const ClipColumns& encoder : encoders) {
        for (std::size_t row = first; row < first + kClipChunkLength; ++row) {
          for (const float value : rows.columns(row, encoder.begin, encoder.end)) total += static_cast<double>(value);
        }
      }
      return total;
    };
    const auto multiply = [&](const ClipColumns& encoder, std::size_t row, float factor) {
      for (float& value : rows.columns(first + row, encoder.begin, encoder.end)) value *= factor;
    };
    const bool weighted = std::any_of(encoders.begin(), encoders.end(),
                                      [chunk](const ClipColumns& encoder) { return encoder.chunks[chunk].weighted(); });
    if (!weighted) continue;
    const double before = sum();
    for (const ClipColumns& encoder : encoders) {
      for (std::size_t row = 0; row < kClipChunkLength; ++row)
        multiply(encoder, row, encoder.chunks[chunk].weights[row]);
    }
    const double after = sum();
    if (after == 0) continue;  // nothing that a factor could bring back
    for (const ClipColumns& encoder : encoders) {
      for (std::size_t row = 0; row < kClipChunkLength; ++row)
        multiply(encoder, row, static_cast<float>(before / after));
    }
  }
}

void interpolate(std::span<float> row, std::span<const float> empty, float weight) {
  if (weight == 1.0f) return;
  for (std::size_t i = 0; i < row.size(); ++i) row[i] = (row[i] - empty[i]) * weight + empty[i];
}

}  // namespace

TextTokens TextConditioner::tokenize_branch(const generation::GenerationRequest& request, bool negative) const {
  const auto syntax = text::find_prompt_syntax(request.prompt_syntax);
  OCTAVO_CHECK(syntax.has_value(), "request is not resolved: prompt_syntax '{}'", request.prompt_syntax);
  const std::string& first = negative ? request.negative_prompt : request.prompt;
  const std::string& second = negative ? request.negative_prompt_2 : request.prompt_2;
  const std::string& third = negative ? request.negative_prompt_3 : request.prompt_3;
  const auto parse = [&](const std::string& own) { return text::parse_prompt(own.empty() ? first : own, *syntax); };
  TextTokens tokens;
  tokens.syntax = *syntax;
  tokens.clip_l = text::clip_chunks(model_.tokenizer_l, parse(first), *syntax);
  tokens.clip_g = text::clip_chunks(model_.tokenizer_g, parse(second), *syntax);
  if (model_.encoder_t5) tokens.t5 = text::t5_ids(*model_.tokenizer_t5, parse(third));
  // diffusers skips layers for the prompt alone, the others for both.
  const bool skips = request.clip_skip > 0 && !(negative && *syntax == PromptSyntax::kPlain);
  const int most = std::max(kTrainedClipLayer, model_.limits.max_clip_skip);
  tokens.clip_layer = skips ? std::clamp(request.clip_skip, kTrainedClipLayer, most) : kTrainedClipLayer;
  return tokens;
}

std::vector<TextTokens> TextConditioner::tokenize(const generation::GenerationRequest& request) const {
  std::vector<TextTokens> branches;
  if (sampling::Guidance{static_cast<float>(request.guidance_scale)}.enabled()) {
    branches.push_back(tokenize_branch(request, true));
  }
  branches.push_back(tokenize_branch(request, false));

  std::size_t chunks = 1;
  auto t5_rows = static_cast<std::size_t>(request.t5_length);
  for (const TextTokens& branch : branches) {
    chunks = std::max({chunks, branch.clip_l.size(), branch.clip_g.size()});
    if (branch.syntax == PromptSyntax::kComfyUi) t5_rows = std::max(t5_rows, branch.t5.ids.size());
  }
  t5_rows = std::min(t5_rows, static_cast<std::size_t>(model_.limits.max_t5_length));
  if (chunks > kMostChunks) {
    spdlog::warn("a prompt has {} chunks of 75 tokens; those beyond {} are left out", chunks, kMostChunks);
    chunks = kMostChunks;
  }
  for (TextTokens& branch : branches) {
    branch.clip_l.resize(chunks, text::empty_clip_chunk(model_.tokenizer_l));
    branch.clip_g.resize(chunks, text::empty_clip_chunk(model_.tokenizer_g));
    if (model_.encoder_t5) {
      branch.t5 = text::fit_t5(*model_.tokenizer_t5, std::move(branch.t5), static_cast<int>(t5_rows));
    } else {
      branch.t5.ids.assign(t5_rows, 0);
      branch.t5.weights.assign(t5_rows, 1.0f);
    }
  }
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
  std::vector<std::int32_t> ids;
  const auto add = [&ids](const WeightedIds& part) { ids.insert(ids.end(), part.ids.begin(), part.ids.end()); };
  for (const WeightedIds& chunk : tokens.clip_l) add(chunk);
  for (const WeightedIds& chunk : tokens.clip_g) add(chunk);
  add(tokens.t5);

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
  OCTAVO_RETURN_IF_ERROR(apply_weights(context, tokens, entry.text.context));
  stream.synchronize();
  cache_.push_front(std::move(entry));
  if (cache_.size() > kCacheEntries) cache_.pop_back();
  return cache_.front().text;
}

void TextConditioner::plan(ops::ExecutionContext& context, const TextTokens& tokens) const {
  OCTAVO_CHECK(context.dry_run(), "plan outside a dry run");
  const auto dry = [](DType dtype, Shape shape) { return TensorView(static_cast<void*>(nullptr), dtype, shape); };
  encode_into(context, tokens, dry(DType::kI32, Shape{2 * tokens.clip_rows() + tokens.t5_rows()}),
              {dry(DType::kF32, Shape{tokens.context_rows(), model_.mmdit.config().context_width}),
               dry(DType::kF32, Shape{model_.mmdit.config().pooled_width})});
}

void TextConditioner::encode_into(ops::ExecutionContext& context, const TextTokens& tokens, const TensorView& ids,
                                  const EncodedText& target) const {
  const TensorView all = target.context.reshape(Shape{1, target.context.dim(0), target.context.dim(1)});
  const TensorView pooled = target.pooled.reshape(Shape{1, target.pooled.dim(0)});
  device::Arena::Scope scope(context.arena());
  // Chunks behind the first have a pooled vector that nothing reads.
  const TensorView unread = context.arena().take(DType::kF32, pooled.shape());
  const auto ids_at = [&](std::int64_t begin, std::int64_t count) {
    return ids.slice(0, begin, count).reshape(Shape{1, count});
  };
  const auto encode_clip = [&](const models::ClipTextModel& encoder, const std::vector<WeightedIds>& chunks,
                               std::int64_t first_id, std::int64_t column, std::int64_t pooled_column) {
    const std::int64_t width = encoder.config().width, projection = encoder.config().projection;
    for (std::size_t chunk = 0; chunk < chunks.size(); ++chunk) {
      const std::int64_t row = static_cast<std::int64_t>(chunk) * kClipChunkLength;
      encoder.encode(context, ids_at(first_id + row, kClipChunkLength), {encoder.eos_row(chunks[chunk].ids)},
                     all.slice(1, row, kClipChunkLength).slice(2, column, width),
                     (chunk == 0 ? pooled : unread).slice(1, pooled_column, projection), tokens.clip_layer);
    }
  };
  encode_clip(model_.encoder_l, tokens.clip_l, 0, 0, 0);
  encode_clip(model_.encoder_g, tokens.clip_g, tokens.clip_rows(), model_.encoder_l.config().width,
              model_.encoder_l.config().projection);
  if (model_.encoder_t5) {
    model_.encoder_t5->encode(context, ids_at(2 * tokens.clip_rows(), tokens.t5_rows()),
                              all.slice(1, tokens.clip_rows(), tokens.t5_rows()));
  }
}

/// On the host: a weighted prompt is rare, small (half a megabyte) and encoded once.
Status TextConditioner::apply_weights(ops::ExecutionContext& context, const TextTokens& tokens,
                                      const TensorView& target) {
  const bool clip_weighted = any_weighted(tokens.clip_l) || any_weighted(tokens.clip_g);
  const bool t5_weighted = model_.encoder_t5 && tokens.t5.weighted() && tokens.syntax == PromptSyntax::kComfyUi;
  if (!clip_weighted && !t5_weighted) return {};
  const auto width_l = static_cast<std::size_t>(model_.encoder_l.config().width);
  const auto width_g = static_cast<std::size_t>(model_.encoder_g.config().width);
  const ClipColumns encoders[] = {{0, width_l, tokens.clip_l}, {width_l, width_l + width_g, tokens.clip_g}};
  const auto upload = [&](const HostRows& rows) {
    context.device().copy_to_device(context.stream(), target.data(), rows.values().data(),
                                    rows.values().size() * sizeof(float));
    context.stream().synchronize();
  };
  if (tokens.syntax != PromptSyntax::kComfyUi) {
    HostRows rows(context, target);
    weigh_a1111(rows, encoders, tokens.clip_l.size());
    upload(rows);
    return {};
  }

  TextTokens nothing;
  nothing.syntax = tokens.syntax;
  nothing.clip_layer = tokens.clip_layer;
  nothing.clip_l = {text::empty_clip_chunk(model_.tokenizer_l)};
  nothing.clip_g = {text::empty_clip_chunk(model_.tokenizer_g)};
  nothing.t5 = tokens.t5;  // the length, and all of it without T5
  if (model_.encoder_t5) {
    nothing.t5 =
        text::fit_t5(*model_.tokenizer_t5, text::t5_ids(*model_.tokenizer_t5, {}), static_cast<int>(tokens.t5_rows()));
  }
  OCTAVO_ASSIGN_OR_RETURN(const EncodedText encoded, encode(context, nothing));
  HostRows empty(context, encoded.context), rows(context, target);
  for (const ClipColumns& encoder : encoders) {
    for (std::size_t chunk = 0; chunk < encoder.chunks.size(); ++chunk) {
      for (std::size_t row = 0; row < kClipChunkLength; ++row) {
        interpolate(rows.columns(chunk * kClipChunkLength + row, encoder.begin, encoder.end),
                    empty.columns(row, encoder.begin, encoder.end), encoder.chunks[chunk].weights[row]);
      }
    }
  }
  if (t5_weighted) {
    const auto width = static_cast<std::size_t>(target.dim(1)), first = static_cast<std::size_t>(tokens.clip_rows());
    for (std::size_t row = 0; row < tokens.t5.ids.size(); ++row) {
      interpolate(rows.columns(first + row, 0, width), empty.columns(kClipChunkLength + row, 0, width),
                  tokens.t5.weights[row]);
    }
  }
  upload(rows);
  return {};
}

}  // namespace octavo::pipeline
