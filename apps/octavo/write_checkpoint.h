// What the commands that write checkpoints share: flags in words, progress with the time left, Ctrl-C, the last line.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "base/status.h"
#include "weights/export/checkpoint_source.h"
#include "weights/export/export.h"

namespace octavo::app {

/// f32, f16, bf16, fp8 (E4M3); nothing for "".
Result<std::optional<DType>> parse_checkpoint_dtype(const std::string& word);

/// What a folder checkpoint has besides its parts.
struct FolderExtras {
  std::filesystem::path tokenizers;  // holds the folders tokenizer, tokenizer_2 and, with T5, tokenizer_3
  std::string scheduler;             // scheduler_config.json; empty = the released models'
};

/// For a folder of `layout` (its word) that holds what `source` has: `tokenizers`, or those of `model` when it is
/// empty; the scheduler of `model`, if it has one. kInvalidArgument naming the flag of a part that such a folder needs
/// and the source lacks, or --tokenizers.
Result<FolderExtras> folder_extras(const weights::TensorSource& source, const std::string& model,
                                   const std::string& tokenizers, const std::string& layout);

/// Writes what is planned, with what the layout has besides; progress, Ctrl-C and output as write_checkpoint().
Status write_planned(const weights::TensorSource& source, weights::ExportPlan plan, weights::CheckpointLayout layout,
                     const std::filesystem::path& out, const FolderExtras& extras);

/// The same for a diffusers folder that nobody waits for by name: no output, no progress, no Ctrl-C of its own.
Status write_quietly(const weights::TensorSource& source, weights::ExportPlan plan, const std::filesystem::path& out,
                     const FolderExtras& extras);

/// Plans and writes; says on standard output what was written, how large and how fast.
Status write_checkpoint(const weights::TensorSource& source, const weights::ExportOptions& options,
                        const std::filesystem::path& out, const FolderExtras& extras);

/// The flags that name a checkpoint to read: --model, and parts that are elsewhere.
struct SourceFlags {
  std::string model;
  std::string clip_l, clip_g, t5, vae;
};
void add_source_flags(CLI::App& command, SourceFlags& flags);
Result<std::unique_ptr<weights::CheckpointSource>> open_source(const SourceFlags& flags);

}  // namespace octavo::app
