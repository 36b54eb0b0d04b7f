// The text of a request as the transformer takes it: tokenised, encoded by CLIP-L, CLIP-G and T5, joined into one
// context: all chunks of CLIP-L beside CLIP-G, unused channels zero, over T5 (Esser et al., arXiv:2403.03206, section
// 4). The pooled vector is the first chunk's.
//
// Weights are applied to what the encoders give, as the prompt's syntax has it:
//   a1111    rows of CLIP are multiplied; then each chunk is scaled so that its mean over both encoders stays what it
//            was (its emphasis "Original"). T5 has no weights.
//   comfyui  every row is moved away from, or towards, the same row of the empty prompt: e + w (z - e); T5 too.
#pragma once

#include <cstdint>
#include <list>
#include <vector>

#include "device/execution_context.h"
#include "generation/generation.h"
#include "models/sd35/sd35.h"
#include "text/prompt_tokens.h"

namespace octavo::pipeline {

/// All that the encoding of one branch depends on. Equal values are encoded to equal bits.
struct TextTokens {
  std::vector<text::WeightedIds> clip_l, clip_g;  // chunks of 77, as many in both
  text::WeightedIds t5;                           // as many as T5 rows in the context
  text::PromptSyntax syntax = text::PromptSyntax::kPlain;
  int clip_layer = 2;  // CLIP's hidden state, counted from the last: 2 = the one SD3.5 was trained with
  bool operator==(const TextTokens&) const = default;

  std::int64_t clip_rows() const { return static_cast<std::int64_t>(clip_l.size()) * text::kClipChunkLength; }
  std::int64_t t5_rows() const { return static_cast<std::int64_t>(t5.ids.size()); }
  std::int64_t context_rows() const { return clip_rows() + t5_rows(); }
};

/// A branch as the transformer takes it; on the device, f32.
struct EncodedText {
  TensorView context;  // [context_rows, context_width]
  TensorView pooled;   // [pooled_width]
};

/// Tokenises and encodes; remembers the last prompts (the same bits, sooner). One thread at a time.
class TextConditioner {
 public:
  /// `model` must outlive it.
  explicit TextConditioner(const models::Sd35& model) : model_(model) {}

  /// The branches of a resolved request in the transformer's order: the negative prompt when guidance is on, then the
  /// prompt. Never empty. All have as many context rows as the longest needs: chunks of the empty prompt and T5's
  /// padding fill the others. Beyond kMostChunks a prompt is cut, with a line in the log.
  std::vector<TextTokens> tokenize(const generation::GenerationRequest& request) const;
  static constexpr std::size_t kMostChunks = 32;

  /// Encodes, or finds what it encoded before. The result is complete (the stream is synchronised) and valid until
  /// the next call. Fails when the device has no memory.
  Result<EncodedText> encode(ops::ExecutionContext& context, const TextTokens& tokens);

  /// Lets a measuring arena see what encode() takes of it for these tokens.
  void plan(ops::ExecutionContext& context, const TextTokens& tokens) const;

  void clear_cache() { cache_.clear(); }

 private:
  struct Entry {
    TextTokens tokens;
    device::Buffer buffer;
    EncodedText text;
  };
  TextTokens tokenize_branch(const generation::GenerationRequest& request, bool negative) const;
  /// `ids` [..] i32 on the device: CLIP-L's chunks, CLIP-G's, T5's.
  void encode_into(ops::ExecutionContext& context, const TextTokens& tokens, const TensorView& ids,
                   const EncodedText& target) const;
  Status apply_weights(ops::ExecutionContext& context, const TextTokens& tokens, const TensorView& target);

  const models::Sd35& model_;
  std::list<Entry> cache_;  // most recently used first
};

}  // namespace octavo::pipeline
