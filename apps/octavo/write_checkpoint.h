// What the commands that write checkpoints share: flags in words, progress with the time left, Ctrl-C, the last line.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "base/status.h"
#include "weights/export/export.h"

namespace octavo::app {

/// f32, f16, bf16, fp8 (E4M3); nothing for "".
Result<std::optional<DType>> parse_checkpoint_dtype(const std::string& word);

/// Plans and writes; says on standard output what was written, how large and how fast. A folder checkpoint also gets
/// the three tokenizer folders of `tokenizers` and the scheduler's configuration.
Status write_checkpoint(const weights::TensorSource& source, const weights::ExportOptions& options,
                        const std::filesystem::path& out, const std::filesystem::path& tokenizers);

}  // namespace octavo::app
