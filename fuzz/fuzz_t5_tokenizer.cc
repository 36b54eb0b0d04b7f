// Any bytes as a prompt to octavo-tiny's T5 tokenizer, or (first byte odd) as a sentencepiece file taken apart and its
// normalisation table: ids lie in the vocabulary, rows end as the encoder needs, broken files end in a Status.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "text/charsmap.h"
#include "text/sentencepiece_model.h"
#include "text/t5_tokenizer.h"

namespace {

void encode_prompt(std::string_view text) {
  static const auto tokenizer =
      octavo::text::T5Tokenizer::load(std::string(OCTAVO_SOURCE_DIR) + "/models/octavo-tiny/tokenizer_3").value();
  const auto ids = tokenizer.encode(text);
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= static_cast<std::int64_t>(tokenizer.vocabulary_size())) std::abort();
  }
  for (const std::size_t length : {std::size_t{1}, std::size_t{77}, std::size_t{256}}) {
    const auto row = tokenizer.encode_padded(text, static_cast<int>(length));
    if (row.size() != length || row[std::min(ids.size(), length - 1)] != 1) std::abort();
  }
}

void load_files(std::string_view bytes) {
  const auto parts = octavo::text::parse_sentencepiece_model(bytes, "fuzz");
  if (parts.ok() && parts->charsmap.size() > bytes.size()) std::abort();
  const auto map = octavo::text::Charsmap::parse(bytes, "fuzz");
  if (map.ok()) (void)map->normalize("a \xC2\xBD e\xCC\x81 \xEF\xAC\x81 \xF0\x9F\x90\xB1 \xFF");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if ((data[0] & 1) == 0) {
    encode_prompt(rest);
  } else {
    load_files(rest);
  }
  return 0;
}
