#include "text/t5_tokenizer.h"

#include <sentencepiece_processor.h>

#include <charconv>
#include <unordered_set>

#include "text/charsmap.h"
#include "text/sentencepiece_model.h"
#include "text/tokenizer_files.h"
#include "text/unicode.h"

namespace octavo::text {

namespace {

constexpr std::string_view kWordMark = "\xE2\x96\x81";  // begins every word
constexpr char32_t kMarkPoint = 0x2581;

}  // namespace

struct T5Tokenizer::Tables {
  Charsmap charsmap;
  sentencepiece::SentencePieceProcessor pieces;
  std::unordered_set<char32_t> alphabet;  // code points that occur in pieces
  std::vector<SpecialToken> specials;
  std::int32_t end = 1, pad = 0;
  int max_length = 512;

  void append_word(std::string_view word, std::vector<std::int32_t>& ids) const;
  void append_plain(std::string_view text, std::vector<std::int32_t>& ids) const;
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
      return not_found(model.string(),
                       "no such file; tokenizer.json alone is not read: copy spiece.model from the "
                       "model's original tokenizer_3 folder");
    }
    return not_found(model.string(), "no such file");
  }
  OCTAVO_ASSIGN_OR_RETURN(const SentencepieceModel parts, read_sentencepiece_model(model));
  OCTAVO_ASSIGN_OR_RETURN(tables->charsmap, Charsmap::parse(parts.charsmap, model.string()));
  if (const auto status = tables->pieces.LoadFromSerializedProto(parts.pieces); !status.ok()) {
    return data_corruption(model.string(), "is not a sentencepiece model: " + status.ToString());
  }
  OCTAVO_ASSIGN_OR_RETURN(const auto special, read_special_tokens(folder));
  tables->max_length = special.model_max_length;
  const auto size = static_cast<std::int32_t>(tables->pieces.GetPieceSize());
  for (std::int32_t id = 0; id < size; ++id) {
    for (const char32_t point : decode_utf8(tables->pieces.IdToPiece(id))) tables->alphabet.insert(point);
  }
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

void T5Tokenizer::Tables::append_word(std::string_view word, std::vector<std::int32_t>& ids) const {
  const std::vector<int> found = pieces.EncodeAsIds({word.data(), word.size()});
  ids.insert(ids.end(), found.begin(), found.end());
}

/// Words end at white space and before each U+2581 of the text itself; each is segmented alone, with one mark in front.
void T5Tokenizer::Tables::append_plain(std::string_view text, std::vector<std::int32_t>& ids) const {
  std::string word;
  const auto finish = [&] {
    if (!word.empty()) append_word(word, ids);
    word.clear();
  };
  bool after_unknown = false;
  for (const char32_t point : decode_utf8(charsmap.normalize(text))) {
    if (is_whitespace(point)) {
      finish();
      continue;
    }
    if (point == kMarkPoint) finish();
    if (word.empty()) {
      after_unknown = false;
      if (point != kMarkPoint) word = kWordMark;
    }
    // A run of code points that no piece has is one unknown token, however long: its first stands for it, because
    // sentencepiece joins the run in quadratic time.
    const bool unknown = !alphabet.contains(point);
    if (!unknown || !after_unknown) append_utf8(word, point);
    after_unknown = unknown;
  }
  finish();
}

std::vector<std::int32_t> T5Tokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> ids;
  for (const TextPiece& piece : split_at_special_tokens(text, tables_->specials)) {
    if (piece.id >= 0) {
      ids.push_back(piece.id);
    } else {
      tables_->append_plain(piece.text, ids);
    }
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

std::int32_t T5Tokenizer::end_id() const { return tables_->end; }
std::int32_t T5Tokenizer::pad_id() const { return tables_->pad; }
int T5Tokenizer::model_max_length() const { return tables_->max_length; }
std::size_t T5Tokenizer::vocabulary_size() const { return static_cast<std::size_t>(tables_->pieces.GetPieceSize()); }

}  // namespace octavo::text
