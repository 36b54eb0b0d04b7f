// The text of a request as the transformer takes it: tokenised, encoded by CLIP-L, CLIP-G and T5, joined into one
// context: CLIP-L beside CLIP-G, unused channels zero, over T5 (Esser et al., arXiv:2403.03206, section 4).
#pragma once

#include <cstdint>
#include <list>
#include <vector>

#include "device/execution_context.h"
#include "generation/generation.h"
#include "models/sd35/sd35.h"

namespace octavo::pipeline {

/// What the encoders read of one branch: ids with their padding. Equal tokens are encoded to equal bits.
struct TextTokens {
  std::vector<std::int32_t> clip_l, clip_g;  // 77 each
  std::vector<std::int32_t> t5;              // as many as T5 rows in the context
  bool operator==(const TextTokens&) const = default;

  std::int64_t context_rows() const { return static_cast<std::int64_t>(clip_l.size() + t5.size()); }
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

  /// The branches of a resolved request in the transformer's order, all with the same number of context rows: the
  /// negative prompt when guidance is on, then the prompt. Never empty.
  std::vector<TextTokens> tokenize(const generation::GenerationRequest& request) const;

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
  /// `ids` [rows] i32 on the device: CLIP-L's, CLIP-G's, T5's.
  void encode_into(ops::ExecutionContext& context, const TextTokens& tokens, const TensorView& ids,
                   const EncodedText& target) const;

  const models::Sd35& model_;
  std::list<Entry> cache_;  // most recently used first
};

}  // namespace octavo::pipeline
