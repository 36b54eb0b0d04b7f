// A sentencepiece model file taken apart: its normalisation table, and the model without it.
#pragma once

#include <filesystem>
#include <string>

#include "base/status.h"

namespace octavo::text {

struct SentencepieceModel {
  std::string charsmap;  // normalizer_spec.precompiled_charsmap; "" when the model has none
  std::string pieces;    // a ModelProto that segments its input as it is: no normalisation, no prefix, no trimming
};

/// Reads the file's outer structure (protobuf: ModelProto of sentencepiece_model.proto). Errors name the file.
Result<SentencepieceModel> read_sentencepiece_model(const std::filesystem::path& path);

/// The same for bytes in memory.
Result<SentencepieceModel> parse_sentencepiece_model(std::string_view bytes, const std::string& file);

}  // namespace octavo::text
