#include "text/sentencepiece_model.h"

#include <cstdint>

#include "text/tokenizer_files.h"

namespace octavo::text {
namespace {

// Field numbers of sentencepiece_model.proto.
constexpr std::uint64_t kNormalizerSpec = 3;       // in ModelProto
constexpr std::uint64_t kPrecompiledCharsmap = 2;  // in NormalizerSpec
// A NormalizerSpec: add_dummy_prefix and remove_extra_whitespaces off, escape_whitespaces on.
constexpr std::string_view kIdentitySpec("\x18\x00\x20\x00\x28\x01", 6);

/// One field of a protobuf message.
struct Field {
  std::uint64_t number = 0;
  std::string_view whole;    // tag included
  std::string_view content;  // of a length-delimited field
};

bool take_varint(std::string_view bytes, std::size_t& at, std::uint64_t& number) {
  number = 0;
  for (int shift = 0; shift < 64 && at < bytes.size(); shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes[at++]);
    number |= std::uint64_t{byte & 0x7Fu} << shift;
    if ((byte & 0x80u) == 0) return true;
  }
  return false;
}

/// False at bytes that are no protobuf field.
bool take_field(std::string_view bytes, std::size_t& at, Field& field) {
  const std::size_t begin = at;
  std::uint64_t tag = 0, length = 0;
  if (!take_varint(bytes, at, tag)) return false;
  field.number = tag >> 3;
  field.content = {};
  switch (tag & 7) {
    case 0:
      if (!take_varint(bytes, at, length)) return false;
      break;
    case 1:
    case 5:
      length = (tag & 7) == 1 ? 8 : 4;
      if (length > bytes.size() - at) return false;
      at += length;
      break;
    case 2:
      if (!take_varint(bytes, at, length) || length > bytes.size() - at) return false;
      field.content = bytes.substr(at, length);
      at += length;
      break;
    default:
      return false;
  }
  field.whole = bytes.substr(begin, at - begin);
  return true;
}

}  // namespace

Result<SentencepieceModel> parse_sentencepiece_model(std::string_view bytes, const std::string& file) {
  const auto broken = [&] { return data_corruption(file, "is not a sentencepiece model, or it is cut off"); };
  SentencepieceModel model;
  model.pieces.reserve(bytes.size());
  Field field, inner;
  for (std::size_t at = 0; at < bytes.size();) {
    if (!take_field(bytes, at, field)) return broken();
    if (field.number != kNormalizerSpec) {
      model.pieces += field.whole;
      continue;
    }
    for (std::size_t inner_at = 0; inner_at < field.content.size();) {
      if (!take_field(field.content, inner_at, inner)) return broken();
      if (inner.number == kPrecompiledCharsmap) model.charsmap = inner.content;
    }
  }
  model.pieces += static_cast<char>((kNormalizerSpec << 3) | 2);
  model.pieces += static_cast<char>(kIdentitySpec.size());
  model.pieces += kIdentitySpec;
  return model;
}

Result<SentencepieceModel> read_sentencepiece_model(const std::filesystem::path& path) {
  OCTAVO_ASSIGN_OR_RETURN(const std::string bytes, read_tokenizer_file(path));
  return parse_sentencepiece_model(bytes, path.string());
}

}  // namespace octavo::text
