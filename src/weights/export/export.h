// Writes a planned checkpoint: streaming, beside its final name first, all of it or nothing.
#pragma once

#include <filesystem>
#include <functional>
#include <utility>

#include "weights/export/export_plan.h"

namespace octavo::weights {

struct ExportControl {
  /// Called after each portion with the bytes written so far and in all; false ends the export (kCancelled).
  std::function<bool(std::size_t done, std::size_t total)> on_progress;
  /// Folders copied into a folder checkpoint, files alone: from, name below it (tokenizers).
  std::vector<std::pair<std::filesystem::path, std::string>> folders;
};

/// kFailedPrecondition when `out` exists, kNotFound when the folder that is to hold it does not: for those who have
/// work to do before they write.
Status check_destination(const std::filesystem::path& out);

/// As check_destination(); kResourceExhausted when the disk has not the room, before anything is
/// written, or fails underway; kDataCorruption naming a tensor, and where in it is a NaN or infinity, that was to be
/// scaled or that the plan wants checked.
/// Whatever happens, `out` is whole or absent and no temporary stays. Takes a few portions of memory, not a tensor.
Status export_checkpoint(const TensorSource& source, const ExportPlan& plan, const std::filesystem::path& out,
                         const ExportControl& control);

}  // namespace octavo::weights
