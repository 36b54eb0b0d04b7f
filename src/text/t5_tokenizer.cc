#include "text/t5_tokenizer.h"

#include <sentencepiece_processor.h>

#include <charconv>

#include "text/tokenizer_files.h"
#include "text/unicode.h"

namespace octavo::text {

struct T5Tokenizer::Tables {
  sentencepiece::SentencePieceProcessor pieces;
  std::vector<SpecialToken> specials;
  std::int32_t end = 1, pad = 0;
  int max_length = 512;
};

T5Tokenizer::T5Tokenizer() = default;
T5Tokenizer::T5Tokenizer(T5Tokenizer&&) noexcept = default;
T5Tokenizer& T5Tokenizer::operator=(T5Tokenizer&&) noexcept = default;
T5Tokenizer::~T5Tokenizer() = default;

Result<T5Tokenizer> T5Tokenizer::load(const std::filesystem::path& folder) {
  auto tables = std::make_unique<Tables>();
  const std::filesystem::path model = folder / "spiece.model";
  std::error_code error;
  if (!std::filesystem::exists(model, error)) {
    if (std::filesystem::exists(folder / "tokenizer.json", error)) {
      return not_found(model.string(), "no such file; tokenizer.json alone is not read: copy spiece.model from the "
                                       "model's original tokenizer_3 folder");
    }
    return not_found(model.string(), "no such file");
  }
  if (const auto status = tables->pieces.Load(model.string()); !status.ok()) {
    return data_corruption(model.string(), "is not a sentencepiece model: " + status.ToString());
  }
  OCTAVO_ASSIGN_OR_RETURN(const auto special, read_special_tokens(folder));
  tables->max_length = special.model_max_length;
  const auto size = static_cast<std::int32_t>(tables->pieces.GetPieceSize());
  for (const auto& [content, normalized] : special.normalized_by_content) {
    const std::int32_t id = tables->pieces.PieceToId(content);
    if (id != tables->pieces.unk_id() || content == tables->pieces.IdToPiece(tables->pieces.unk_id())) {
      tables->specials.push_back({content, id});
    }
  }
  // <extra_id_0> has the highest id: they count down from the end of the table behind the pieces.
  constexpr std::string_view kPrefix = "<extra_id_";
  for (const std::string& content : special.additional) {
    int number = -1;
    if (!content.starts_with(kPrefix)) continue;
    std::from_chars(content.data() + kPrefix.size(), content.data() + content.size(), number);
    if (number >= 0 && number < special.extra_ids) {
      tables->specials.push_back({content, size + special.extra_ids - 1 - number});
    }
  }
  const auto role_id = [&](const char* role, std::int32_t fallback) {
    const auto found = special.by_role.find(role);
    return found == special.by_role.end() ? fallback : tables->pieces.PieceToId(found->second.content);
  };
  tables->end = role_id("eos_token", tables->pieces.eos_id());
  tables->pad = role_id("pad_token", tables->pieces.pad_id());
  if (tables->end < 0 || tables->pad < 0) return data_corruption(model.string(), "has no end or padding piece");
  T5Tokenizer tokenizer;
  tokenizer.tables_ = std::move(tables);
  return tokenizer;
}

std::vector<std::int32_t> T5Tokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> ids;
  for (const TextPiece& piece : split_at_special_tokens(text, tables_->specials)) {
    if (piece.id >= 0) {
      ids.push_back(piece.id);
      continue;
    }
    const std::vector<int> found = tables_->pieces.EncodeAsIds(std::string(piece.text));
    ids.insert(ids.end(), found.begin(), found.end());
  }
  return ids;
}

std::vector<std::int32_t> T5Tokenizer::encode_padded(std::string_view text, int length) const {
  OCTAVO_CHECK(length >= 1, "length {} leaves no room for the end token", length);
  std::vector<std::int32_t> ids = encode(text);
  const auto room = static_cast<std::size_t>(length - 1);
  if (ids.size() > room) ids.resize(room);
  ids.push_back(tables_->end);
  ids.resize(static_cast<std::size_t>(length), tables_->pad);
  return ids;
}

int T5Tokenizer::model_max_length() const { return tables_->max_length; }
std::size_t T5Tokenizer::vocabulary_size() const { return static_cast<std::size_t>(tables_->pieces.GetPieceSize()); }

}  // namespace octavo::text
