#include "synthetic_model.h"

#include <fmt/format.h>

#include "model_path.h"
#include "text/clip_tokenizer.h"
#include "text/t5_tokenizer.h"

namespace octavo::app {

Result<weights::Vocabularies> count_tokens(const std::filesystem::path& tokenizers) {
  OCTAVO_ASSIGN_OR_RETURN(const auto clip_l, text::ClipTokenizer::load(tokenizers / "tokenizer"));
  OCTAVO_ASSIGN_OR_RETURN(const auto clip_g, text::ClipTokenizer::load(tokenizers / "tokenizer_2"));
  OCTAVO_ASSIGN_OR_RETURN(const auto t5, text::T5Tokenizer::load(tokenizers / "tokenizer_3"));
  const auto rows = [](std::size_t count) { return static_cast<std::int64_t>(count); };
  return weights::Vocabularies{rows(clip_l.vocabulary_size()), rows(clip_g.vocabulary_size()),
                               rows(t5.vocabulary_size())};
}

Status check_vocabularies(const weights::Vocabularies& tokens, const weights::ModelSizes& sizes) {
  if (tokens.clip_l <= sizes.clip_l.vocabulary && tokens.clip_g <= sizes.clip_g.vocabulary &&
      tokens.t5 <= sizes.t5.vocabulary) {
    return {};
  }
  return invalid_argument("--tokenizers", fmt::format("have {}, {} and {} tokens, the embeddings {}, {} and {} rows",
                                                      tokens.clip_l, tokens.clip_g, tokens.t5, sizes.clip_l.vocabulary,
                                                      sizes.clip_g.vocabulary, sizes.t5.vocabulary));
}

Result<weights::ModelFiles> synthetic_files(const std::string& family, const std::filesystem::path& tokenizers) {
  std::filesystem::path folder = tokenizers;
  if (folder.empty()) {
    OCTAVO_ASSIGN_OR_RETURN(folder, find_model(""));
  }
  OCTAVO_ASSIGN_OR_RETURN(const weights::Vocabularies tokens, count_tokens(folder));
  const auto sizes = weights::model_sizes(family, {}, tokens);
  if (!sizes.ok()) {
    return invalid_argument("--synthetic", "must be large, large-turbo, medium or tiny, not '" + family + "'");
  }
  OCTAVO_RETURN_IF_ERROR(check_vocabularies(tokens, *sizes));
  weights::ModelFiles files(std::filesystem::path("synthetic-" + family));
  files.tokenizers = folder;
  files.synthetic = *sizes;
  if (family != "tiny") {
    OCTAVO_ASSIGN_OR_RETURN(files.family, weights::parse_family(family));
    files.t5_length = 512;  // as the released models' tokenizer
  }
  return files;
}

}  // namespace octavo::app
