#include "write_checkpoint.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "base/clock.h"
#include "interrupt.h"
#include "weights/synthesis/family.h"

namespace octavo::app {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr double kBytesPerGigabyte = 1e9;
constexpr std::chrono::milliseconds kRedraw{100};

/// One line on a terminal, redrawn in place; silent elsewhere.
class WriteProgress {
 public:
  WriteProgress() : terminal_(isatty(STDERR_FILENO) != 0), started_(Clock::now()) {}
  ~WriteProgress() {
    if (drawn_) std::fputc('\n', stderr);
  }
  WriteProgress(const WriteProgress&) = delete;
  WriteProgress& operator=(const WriteProgress&) = delete;

  void show(std::size_t done, std::size_t total) {
    const auto now = Clock::now();
    if (!terminal_ || total == 0 || (now - shown_ < kRedraw && done < total)) return;
    shown_ = now;
    const double elapsed = seconds(now - started_), bytes = static_cast<double>(done);
    std::string left;
    if (done > 0) left = fmt::format(", {:.0f} s left", elapsed / bytes * static_cast<double>(total - done));
    const std::string line =
        fmt::format("\r{:>3.0f}% {:.2f} of {:.2f} GB, {:.0f} MB/s{}\x1b[K", 100 * bytes / static_cast<double>(total),
                    bytes / kBytesPerGigabyte, static_cast<double>(total) / kBytesPerGigabyte,
                    bytes / 1e6 / std::max(elapsed, 1e-3), left);
    std::fputs(line.c_str(), stderr);
    std::fflush(stderr);
    drawn_ = true;
  }

 private:
  const bool terminal_;
  bool drawn_ = false;
  const Clock::time_point started_;
  Clock::time_point shown_{};
};

}  // namespace

Result<std::optional<DType>> parse_checkpoint_dtype(const std::string& word) {
  if (word.empty()) return std::optional<DType>();
  if (word == "f32") return std::optional(DType::kF32);
  if (word == "f16") return std::optional(DType::kF16);
  if (word == "bf16") return std::optional(DType::kBF16);
  if (word == "fp8") return std::optional(DType::kE4M3);
  return invalid_argument("--dtype", "'" + word + "' is none of f32, f16, bf16, fp8");
}

Status write_checkpoint(const weights::TensorSource& source, const weights::ExportOptions& options, const fs::path& out,
                        const FolderExtras& extras) {
  using weights::CheckpointLayout;
  OCTAVO_ASSIGN_OR_RETURN(weights::ExportPlan plan, weights::plan_export(source.parts(), options));
  weights::ExportControl control;
  if (weights::is_folder(options.layout)) {
    const bool with_t5 = std::any_of(source.parts().begin(), source.parts().end(), [](const weights::SourcePart& part) {
      return part.part == weights::Part::kTextEncoder3;
    });
    if (options.layout == CheckpointLayout::kDiffusers) {
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
  }
  const auto started = Clock::now();
  {
    const Interrupt interrupt;
    WriteProgress progress;
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
  if (plan.scaled_count() > 0) std::printf("%zu weights in scaled FP8\n", plan.scaled_count());
  return {};
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
