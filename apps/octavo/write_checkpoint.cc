#include "write_checkpoint.h"

#include <unistd.h>

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
                        const fs::path& tokenizers) {
  using weights::CheckpointLayout;
  OCTAVO_ASSIGN_OR_RETURN(weights::ExportPlan plan, weights::plan_export(source.parts(), options));
  weights::ExportControl control;
  if (weights::is_folder(options.layout)) {
    if (options.layout == CheckpointLayout::kDiffusers) plan.texts["model_index.json"] = weights::model_index_json();
    plan.texts["scheduler/scheduler_config.json"] = weights::scheduler_json();
    for (const char* name : {"tokenizer", "tokenizer_2", "tokenizer_3"}) {
      control.folders.emplace_back(tokenizers / name, name);
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

}  // namespace octavo::app
