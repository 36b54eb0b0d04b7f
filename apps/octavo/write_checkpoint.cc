#include "write_checkpoint.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>

#include "base/clock.h"
#include "base/log.h"
#include "interrupt.h"
#include "weights/synthesis/family.h"
#include "work_progress.h"

namespace octavo::app {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr double kBytesPerGigabyte = 1e9;

Result<std::string> read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.good() && !file.eof()) return failed_precondition(path.string(), "cannot be read");
  return text;
}

bool has_part(const weights::TensorSource& source, weights::Part wanted) {
  return std::any_of(source.parts().begin(), source.parts().end(),
                     [wanted](const weights::SourcePart& part) { return part.part == wanted; });
}

}  // namespace

Result<std::optional<DType>> parse_checkpoint_dtype(const std::string& word) {
  if (word.empty()) return std::optional<DType>();
  if (word == "f32") return std::optional(DType::kF32);
  if (word == "f16") return std::optional(DType::kF16);
  if (word == "bf16") return std::optional(DType::kBF16);
  if (word == "fp8") return std::optional(DType::kE4M3);
  return invalid_argument("--dtype", "'" + word + "' is none of f32, f16, bf16, fp8");
}

Result<FolderExtras> folder_extras(const weights::TensorSource& source, const std::string& model,
                                   const std::string& tokenizers, const std::string& layout) {
  for (const weights::PartNames& row : weights::kParts) {
    if (row.part == weights::Part::kTextEncoder3 || has_part(source, row.part)) continue;
    return invalid_argument(std::string(row.flag),
                            fmt::format("the model has no {}, which the {} layout needs", row.title, layout));
  }
  if (!has_part(source, weights::Part::kTextEncoder3)) {
    spdlog::warn("the model has no T5: it is written without one");
  }
  FolderExtras extras{.tokenizers = tokenizers};
  const fs::path path(model);
  if (tokenizers.empty()) {
    if (!fs::is_directory(path / "tokenizer")) {
      return invalid_argument("--tokenizers",
                              fmt::format("{} holds none: name a folder with tokenizer, tokenizer_2 and "
                                          "tokenizer_3, which the {} layout has",
                                          model, layout));
    }
    extras.tokenizers = path;
  }
  if (const fs::path scheduler = path / "scheduler/scheduler_config.json"; fs::exists(scheduler)) {
    OCTAVO_ASSIGN_OR_RETURN(extras.scheduler, read_text(scheduler));
  }
  return extras;
}

namespace {

/// Adds what a folder has besides its parts: texts to the plan, folders to the control.
Status add_extras(const weights::TensorSource& source, weights::CheckpointLayout layout, const FolderExtras& extras,
                  weights::ExportPlan& plan, weights::ExportControl& control) {
  if (!weights::is_folder(layout)) return {};
  const bool with_t5 = has_part(source, weights::Part::kTextEncoder3);
  if (layout == weights::CheckpointLayout::kDiffusers) {
    plan.texts["model_index.json"] = weights::model_index_json(with_t5);
  }
  plan.texts["scheduler/scheduler_config.json"] =
      extras.scheduler.empty() ? weights::scheduler_json() : extras.scheduler;
  for (const char* name : {"tokenizer", "tokenizer_2", "tokenizer_3"}) {
    if (name == std::string("tokenizer_3") && !with_t5) continue;
    if (!fs::is_directory(extras.tokenizers / name)) {
      return not_found("--tokenizers", (extras.tokenizers / name).string() + " does not exist");
    }
    control.folders.emplace_back(extras.tokenizers / name, name);
  }
  return {};
}

}  // namespace

Status write_quietly(const weights::TensorSource& source, weights::ExportPlan plan, const fs::path& out,
                     const FolderExtras& extras) {
  weights::ExportControl control;
  OCTAVO_RETURN_IF_ERROR(add_extras(source, weights::CheckpointLayout::kDiffusers, extras, plan, control));
  return weights::export_checkpoint(source, plan, out, control);
}

Status write_planned(const weights::TensorSource& source, weights::ExportPlan plan, weights::CheckpointLayout layout,
                     const fs::path& out, const FolderExtras& extras) {
  using weights::CheckpointLayout;
  weights::ExportControl control;
  OCTAVO_RETURN_IF_ERROR(add_extras(source, layout, extras, plan, control));
  const auto started = Clock::now();
  {
    const Interrupt interrupt;
    WorkProgress progress("writing");
    control.on_progress = [&](std::size_t done, std::size_t total) {
      progress.show(done, total);
      return !interrupt.requested();
    };
    OCTAVO_RETURN_IF_ERROR(weights::export_checkpoint(source, plan, out, control));
  }
  const double elapsed = seconds(Clock::now() - started);
  const auto bytes = static_cast<double>(plan.byte_count());
  std::printf("%s  (%zu file%s of tensors, %.2f GB in %.1f s, %.0f MB/s)\n", out.c_str(), plan.files.size(),
              plan.files.size() == 1 ? "" : "s", bytes / kBytesPerGigabyte, elapsed, bytes / 1e6 / elapsed);
  if (plan.scaled_count() > 0) {
    std::printf("%zu weights in %s\n", plan.scaled_count(),
                layout == CheckpointLayout::kComfyUi ? "scaled FP8" : "8 bits");
  }
  return {};
}

Status write_checkpoint(const weights::TensorSource& source, const weights::ExportOptions& options, const fs::path& out,
                        const FolderExtras& extras) {
  OCTAVO_ASSIGN_OR_RETURN(weights::ExportPlan plan, weights::plan_export(source.parts(), options));
  return write_planned(source, std::move(plan), options.layout, out, extras);
}

void add_source_flags(CLI::App& command, SourceFlags& flags) {
  command.add_option("-m,--model", flags.model, "Diffusers folder, .safetensors file or folder of such files")
      ->required();
  command.add_option("--clip-l", flags.clip_l, "File with the CLIP-L text encoder");
  command.add_option("--clip-g", flags.clip_g, "File with the CLIP-G text encoder");
  command.add_option("--t5", flags.t5, "File with the T5 text encoder");
  command.add_option("--vae", flags.vae, "File with the autoencoder");
}

Result<std::unique_ptr<weights::CheckpointSource>> open_source(const SourceFlags& flags) {
  using weights::Part;
  std::vector<std::pair<Part, fs::path>> extra;
  if (!flags.vae.empty()) extra.emplace_back(Part::kVae, flags.vae);
  if (!flags.clip_l.empty()) extra.emplace_back(Part::kTextEncoder, flags.clip_l);
  if (!flags.clip_g.empty()) extra.emplace_back(Part::kTextEncoder2, flags.clip_g);
  if (!flags.t5.empty()) extra.emplace_back(Part::kTextEncoder3, flags.t5);
  return weights::CheckpointSource::open(flags.model, extra);
}

}  // namespace octavo::app
