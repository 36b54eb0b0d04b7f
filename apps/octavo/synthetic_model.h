// Models of random weights: their vocabularies, and models that are made up in memory.
#pragma once

#include <filesystem>
#include <string>

#include "base/status.h"
#include "weights/model_checkpoint.h"

namespace octavo::app {

/// What the tokenizers of a model need from its embeddings.
Result<weights::Vocabularies> count_tokens(const std::filesystem::path& tokenizers);

/// kInvalidArgument (--tokenizers) when there are more tokens than rows.
Status check_vocabularies(const weights::Vocabularies& tokens, const weights::ModelSizes& sizes);

/// A model of `family` (large, large-turbo, medium, tiny) to be made up when it is opened, with these tokenizers; empty
/// = the embedded model's.
Result<weights::ModelFiles> synthetic_files(const std::string& family, const std::filesystem::path& tokenizers);

}  // namespace octavo::app
