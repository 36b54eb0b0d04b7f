#include "text/clip_tokenizer.h"

#include <array>
#include <queue>
#include <unordered_map>

#include "text/tokenizer_files.h"
#include "text/unicode.h"

namespace octavo::text {
namespace {

constexpr std::string_view kEndOfWord = "</w>";
constexpr std::u32string_view kStartLiteral = U"<|startoftext|>", kEndLiteral = U"<|endoftext|>";  // of CLIP's pattern

/// GPT-2's map from bytes to printable code points: 33-126, 161-172 and 174-255 stand for themselves, the others for
/// U+0100 and on, in order.
std::array<char32_t, 256> byte_symbols() {
  std::array<char32_t, 256> symbols{};
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    symbols[static_cast<std::size_t>(byte)] = printable ? static_cast<char32_t>(byte) : next++;
  }
  return symbols;
}

constexpr std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) | static_cast<std::uint32_t>(right);
}

}  // namespace

struct ClipTokenizer::Tables {
  struct Merge {
    std::int32_t rank = 0;
    std::int32_t result = 0;
  };
  std::unordered_map<std::uint64_t, Merge> merges;  // (left id, right id) -> what they become
  std::array<std::int32_t, 256> inner_byte{};       // id of a byte inside a word
  std::array<std::int32_t, 256> last_byte{};        // id of a byte that ends a word
  std::vector<SpecialToken> raw_specials;           // matched in the text as it came
  std::vector<SpecialToken> normalized_specials;    // matched after lower-casing
  std::int32_t start_token = 0, end_token = 0, pad_token = 0;
  int max_length = 77;
  std::size_t vocabulary_size = 0;

  void append_word(std::string_view bytes, std::vector<std::int32_t>& ids) const;
  void append_plain(std::string_view text, std::vector<std::int32_t>& ids) const;
};

ClipTokenizer::ClipTokenizer() = default;
ClipTokenizer::ClipTokenizer(ClipTokenizer&&) noexcept = default;
ClipTokenizer& ClipTokenizer::operator=(ClipTokenizer&&) noexcept = default;
ClipTokenizer::~ClipTokenizer() = default;

Result<ClipTokenizer> ClipTokenizer::load(const std::filesystem::path& folder) {
  auto tables = std::make_unique<Tables>();
  const std::string vocabulary_path = (folder / "vocab.json").string();
  OCTAVO_ASSIGN_OR_RETURN(const auto vocabulary, read_vocabulary(folder / "vocab.json"));
  OCTAVO_ASSIGN_OR_RETURN(const auto special, read_special_tokens(folder));
  tables->vocabulary_size = vocabulary.size();
  tables->max_length = special.model_max_length;

  const auto id_of = [&](const std::string& token) -> std::int32_t {
    const auto found = vocabulary.find(token);
    return found == vocabulary.end() ? -1 : found->second;
  };
  const auto require_special = [&](const char* role, std::int32_t& id) -> Status {
    const auto named = special.by_role.find(role);
    if (named == special.by_role.end()) return data_corruption(folder.string(), std::string("names no ") + role);
    id = id_of(named->second.content);
    if (id < 0) return data_corruption(vocabulary_path, "has no " + named->second.content + " (" + role + ")");
    return {};
  };
  OCTAVO_RETURN_IF_ERROR(require_special("bos_token", tables->start_token));
  OCTAVO_RETURN_IF_ERROR(require_special("eos_token", tables->end_token));
  OCTAVO_RETURN_IF_ERROR(require_special("pad_token", tables->pad_token));
  for (const auto& [content, normalized] : special.normalized_by_content) {
    const std::int32_t id = id_of(content);
    if (id < 0) continue;
    (normalized ? tables->normalized_specials : tables->raw_specials).push_back({content, id});
  }

  const auto symbols = byte_symbols();
  for (std::size_t byte = 0; byte < 256; ++byte) {
    std::string symbol;
    append_utf8(symbol, symbols[byte]);
    const std::int32_t inner = id_of(symbol), last = id_of(symbol + std::string(kEndOfWord));
    // A byte that the vocabulary lacks becomes the unknown token, which CLIP's files define as the end token.
    tables->inner_byte[byte] = inner < 0 ? tables->end_token : inner;
    tables->last_byte[byte] = last < 0 ? tables->end_token : last;
  }

  const std::filesystem::path merges_path = folder / "merges.txt";
  OCTAVO_ASSIGN_OR_RETURN(const auto merges, read_merges(merges_path));
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    const std::int32_t left_id = id_of(left), right_id = id_of(right), result = id_of(left + right);
    if (left_id < 0 || right_id < 0 || result < 0) {
      return data_corruption(merges_path.string(),
                             fmt::format("merge {} ('{} {}') uses a token that vocab.json lacks", rank, left, right));
    }
    tables->merges.emplace(pair_key(left_id, right_id), Tables::Merge{static_cast<std::int32_t>(rank), result});
  }
  ClipTokenizer tokenizer;
  tokenizer.tables_ = std::move(tables);
  return tokenizer;
}

/// Merges the pair of lowest rank, leftmost first, until none is left; a heap over a linked list, so that a word of n
/// bytes costs n log n.
void ClipTokenizer::Tables::append_word(std::string_view bytes, std::vector<std::int32_t>& ids) const {
  struct Symbol {
    std::int32_t id;
    std::int32_t previous;
    std::int32_t next;
  };
  struct Candidate {
    std::int32_t rank;
    std::int32_t left;  // index of the left symbol
    std::int32_t left_id, right_id;
    bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : left > other.left; }
  };
  const auto count = static_cast<std::int32_t>(bytes.size());
  std::vector<Symbol> word(bytes.size());
  for (std::int32_t i = 0; i < count; ++i) {
    const auto byte = static_cast<unsigned char>(bytes[static_cast<std::size_t>(i)]);
    word[static_cast<std::size_t>(i)] = {i + 1 == count ? last_byte[byte] : inner_byte[byte], i - 1,
                                         i + 1 == count ? -1 : i + 1};
  }
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](std::int32_t left) {
    if (left < 0) return;
    const Symbol& symbol = word[static_cast<std::size_t>(left)];
    if (symbol.next < 0) return;
    const std::int32_t right_id = word[static_cast<std::size_t>(symbol.next)].id;
    const auto found = merges.find(pair_key(symbol.id, right_id));
    if (found != merges.end()) queue.push({found->second.rank, left, symbol.id, right_id});
  };
  for (std::int32_t i = 0; i + 1 < count; ++i) offer(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = word[static_cast<std::size_t>(best.left)];
    if (left.id != best.left_id || left.next < 0) continue;  // merged away since it was offered
    Symbol& right = word[static_cast<std::size_t>(left.next)];
    if (right.id != best.right_id) continue;
    left.id = merges.at(pair_key(best.left_id, best.right_id)).result;
    right.id = -1;
    left.next = right.next;
    if (right.next >= 0) word[static_cast<std::size_t>(right.next)].previous = best.left;
    offer(left.previous);
    offer(best.left);
  }
  for (std::int32_t i = 0; i >= 0; i = word[static_cast<std::size_t>(i)].next) {
    ids.push_back(word[static_cast<std::size_t>(i)].id);
  }
}

/// The pattern <|startoftext|> | <|endoftext|> | 's|'t|'re|'ve|'m|'ll|'d | letters | one number | anything else but
/// whitespace. The first two are ordinary text here (only lower-casing made them, or they would have been split off):
/// they come apart into "<|", letters and "|>" like any text, but what follows them begins a new word.
void ClipTokenizer::Tables::append_plain(std::string_view text, std::vector<std::int32_t>& ids) const {
  const std::vector<char32_t> points = decode_utf8(text);
  std::size_t at = 0;
  std::size_t limit = 0;  // no word that begins before it goes beyond it
  std::string bytes;
  const auto stretch_end = [&](std::size_t begin) {
    for (const std::u32string_view literal : {kStartLiteral, kEndLiteral}) {
      if (std::u32string_view(points.data(), points.size()).substr(begin).starts_with(literal)) {
        return begin + literal.size();
      }
    }
    return points.size();
  };
  const auto word_end = [&](std::size_t begin) {
    const char32_t first = points[begin];
    if (first == U'\'' && begin + 1 < points.size()) {
      const char32_t second = points[begin + 1];
      if (second == U's' || second == U't' || second == U'm' || second == U'd') return begin + 2;
      if (begin + 2 < points.size()) {
        const char32_t third = points[begin + 2];
        if ((second == U'r' && third == U'e') || (second == U'v' && third == U'e') ||
            (second == U'l' && third == U'l')) {
          return begin + 3;
        }
      }
    }
    if (is_number(first)) return begin + 1;
    const bool letters = is_letter(first);
    std::size_t end = begin + 1;
    while (end < limit && !is_whitespace(points[end]) && !is_number(points[end]) && is_letter(points[end]) == letters) {
      ++end;
    }
    return end;
  };
  while (at < points.size()) {
    if (is_whitespace(points[at])) {
      ++at;
      continue;
    }
    if (at >= limit || limit == points.size()) limit = stretch_end(at);
    const std::size_t end = word_end(at);
    bytes.clear();
    for (; at < end; ++at) append_utf8(bytes, points[at]);
    append_word(bytes, ids);
  }
}

std::vector<std::int32_t> ClipTokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> ids;
  for (const TextPiece& piece : split_at_special_tokens(text, tables_->raw_specials)) {
    if (piece.id >= 0) {
      ids.push_back(piece.id);
      continue;
    }
    std::string lower;
    lower.reserve(piece.text.size());
    for (const char32_t point : to_lower(to_nfc(decode_utf8(piece.text)))) append_utf8(lower, point);
    for (const TextPiece& inner : split_at_special_tokens(lower, tables_->normalized_specials)) {
      if (inner.id >= 0) {
        ids.push_back(inner.id);
      } else {
        tables_->append_plain(inner.text, ids);
      }
    }
  }
  return ids;
}

std::vector<std::int32_t> ClipTokenizer::encode_padded(std::string_view text, int length) const {
  OCTAVO_CHECK(length >= 2, "length {} leaves no room for start and end", length);
  std::vector<std::int32_t> ids = encode(text);
  const auto room = static_cast<std::size_t>(length - 2);
  if (ids.size() > room) ids.resize(room);
  ids.insert(ids.begin(), tables_->start_token);
  ids.push_back(tables_->end_token);
  ids.resize(static_cast<std::size_t>(length), tables_->pad_token);
  return ids;
}

int ClipTokenizer::model_max_length() const { return tables_->max_length; }
std::int32_t ClipTokenizer::start_id() const { return tables_->start_token; }
std::int32_t ClipTokenizer::end_id() const { return tables_->end_token; }
std::int32_t ClipTokenizer::pad_id() const { return tables_->pad_token; }
std::size_t ClipTokenizer::vocabulary_size() const { return tables_->vocabulary_size; }

}  // namespace octavo::text
