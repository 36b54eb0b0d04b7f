// Any bytes as a prompt to octavo-tiny's CLIP tokenizers, or (first byte odd) as the files of a CLIP tokenizer: ids lie
// in the vocabulary, padded rows have the shape the encoders need, broken files end in a Status that names them.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "text/clip_tokenizer.h"

namespace {

using octavo::text::ClipTokenizer;

void encode(const ClipTokenizer& tokenizer, std::string_view text, std::int64_t id_limit) {
  const auto ids = tokenizer.encode(text);
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= id_limit) std::abort();
  }
  const auto row = tokenizer.encode_padded(text, 77);
  if (row.size() != 77 || row.front() != tokenizer.start_id()) std::abort();
  const std::size_t end = ids.size() < 75 ? ids.size() + 1 : 76;
  if (row[end] != tokenizer.end_id()) std::abort();
}

void encode_prompt(std::string_view text) {
  static const std::string models = std::string(OCTAVO_SOURCE_DIR) + "/models/octavo-tiny/";
  static const ClipTokenizer clip_l = ClipTokenizer::load(models + "tokenizer").value();
  static const ClipTokenizer clip_g = ClipTokenizer::load(models + "tokenizer_2").value();
  for (const ClipTokenizer* tokenizer : {&clip_l, &clip_g}) {
    encode(*tokenizer, text, static_cast<std::int64_t>(tokenizer->vocabulary_size()));
  }
}

/// Three files, divided by bytes of 0xFE (never part of UTF-8): vocabulary, merges, configuration.
void load_files(std::string_view bytes) {
  static const std::filesystem::path folder = [] {
    std::string pattern = (std::filesystem::temp_directory_path() / "octavo-fuzz-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) std::abort();
    return std::filesystem::path(pattern);
  }();
  static const bool removed_at_exit = std::atexit([] {
                                        std::error_code ignored;
                                        std::filesystem::remove_all(folder, ignored);
                                      }) == 0;
  (void)removed_at_exit;
  for (const char* name : {"vocab.json", "merges.txt", "tokenizer_config.json"}) {
    const std::size_t end = bytes.find('\xFE');
    std::ofstream(folder / name, std::ios::binary) << bytes.substr(0, end);
    bytes = end == std::string_view::npos ? std::string_view() : bytes.substr(end + 1);
  }
  const auto loaded = ClipTokenizer::load(folder);
  if (!loaded.ok()) {
    if (loaded.status().to_string().find(folder.string()) == std::string::npos) std::abort();
    return;
  }
  encode(*loaded, "a red cat, <|endoftext|> caf\xC3\xA9 \xFF 42", 1 << 24);
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
