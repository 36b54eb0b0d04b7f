#include "bench_model.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <vector>

#include "ops/op_profile.h"
#include "pipeline/pipeline.h"
#include "telemetry/stages.h"

namespace octavo::app {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kMiB = 1 << 20;
constexpr int kProfiledSteps = 3;  // after one that warms up

double since(Clock::time_point started) { return seconds(Clock::now() - started); }

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

/// Of this program alone: what getrusage() tells begins with the process that started it.
double host_peak_mib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::strtod(line.c_str() + 6, nullptr) / 1024.0;
  }
  return 0;
}

/// Since the system started this process, to 10 ms; 0 where /proc does not tell.
double process_age_seconds() {
  std::ifstream uptime_file("/proc/uptime"), stat_file("/proc/self/stat");
  double uptime = 0;
  std::string stat;
  if (!(uptime_file >> uptime) || !std::getline(stat_file, stat)) return 0;
  // The program's name, in brackets, may hold blanks; the start is field 22, the 20th behind it.
  std::istringstream fields(stat.substr(stat.rfind(')') + 1));
  std::string field;
  for (int i = 0; i < 20; ++i) fields >> field;
  const double ticks = fields ? std::strtod(field.c_str(), nullptr) : 0;
  const double age = uptime - ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
  return ticks > 0 && age > 0 ? age : 0;
}

struct Loaded {
  std::unique_ptr<pipeline::Pipeline> pipeline;
  generation::GenerationRequest request;
  double load_seconds = 0;
};

Result<Loaded> load(const ModelBench& bench, const std::string& vram) {
  ComputeFlags compute = bench.compute;
  if (!vram.empty()) compute.vram = vram;
  OCTAVO_ASSIGN_OR_RETURN(const auto files, find_model_files(bench.model));
  OCTAVO_ASSIGN_OR_RETURN(auto loading, load_options(compute, bench.precision));
  if (bench.static_scales) {
    if (bench.model.synthetic.empty() || loading.precision != pipeline::LoadOptions::Precision::kFp8) {
      return invalid_argument("--static-scales",
                              "goes with --synthetic and --precision fp8: a real model's scales are "
                              "found by `octavo quantize --weights tensor --activations static`");
    }
    constexpr float kLargestInput = 8.0f;  // inputs of random weights have a deviation of about 1
    loading.static_amax = kLargestInput;
  }
  Loaded loaded;
  const auto started = Clock::now();
  OCTAVO_ASSIGN_OR_RETURN(loaded.pipeline, pipeline::load_pipeline(files, loading));
  loaded.load_seconds = since(started);
  OCTAVO_ASSIGN_OR_RETURN(loaded.request, generation::resolve(bench.request, loaded.pipeline->capabilities()));
  return loaded;
}

/// What several pictures took, one call each.
struct Rounds {
  double first_seconds = 0;  // the call that warms up: kernels are chosen, memory is taken
  double first_age = 0;      // from the process's start to that picture; 0 unless it is the process's first
  std::map<std::string, std::vector<double>> stages;
  std::vector<double> steps;  // between the ends of neighbouring steps
  device::MemoryStatistics memory;
  std::uint64_t allocations_after_first = 0;

  double stage(std::string_view name) const {
    const auto found = stages.find(std::string(name));
    return found == stages.end() ? 0 : median(found->second);
  }
};

Result<Rounds> run_rounds(const Loaded& loaded, int repeat) {
  pipeline::Pipeline& pipe = *loaded.pipeline;
  Rounds rounds;
  const auto first_started = Clock::now();
  OCTAVO_RETURN_IF_ERROR(pipe.generate(loaded.request, {}).status());
  rounds.first_seconds = since(first_started);
  rounds.first_age = process_age_seconds();
  const std::uint64_t warm = pipe.memory_statistics().driver_allocations;
  for (int round = 0; round < repeat; ++round) {
    pipe.clear_prompt_cache();  // every round encodes its text, as a new prompt would
    generation::RunControl control;
    std::optional<Clock::time_point> last;
    control.on_progress = [&](const generation::Progress& progress) {
      const auto now = Clock::now();
      if (progress.stage != telemetry::kDenoise) {
        last.reset();
        return;
      }
      if (last && progress.step > 1) rounds.steps.push_back(seconds(now - *last));
      last = now;
    };
    const auto started = Clock::now();
    OCTAVO_ASSIGN_OR_RETURN(const auto result, pipe.generate(loaded.request, control));
    rounds.stages[std::string(telemetry::kTotal)].push_back(since(started));
    for (const auto& [stage, value] : result.stage_seconds) {
      if (stage != telemetry::kTotal) rounds.stages[stage].push_back(value);
    }
  }
  rounds.memory = pipe.memory_statistics();
  rounds.allocations_after_first = rounds.memory.driver_allocations - warm;
  // One step has no neighbour.
  if (rounds.steps.empty()) rounds.steps.push_back(rounds.stage(telemetry::kDenoise) / loaded.request.steps);
  return rounds;
}

double best(const std::vector<double>& values) { return *std::min_element(values.begin(), values.end()); }

boost::json::object describe(const Loaded& loaded) {
  const pipeline::Pipeline& pipe = *loaded.pipeline;
  return {{"model", pipe.capabilities().model_name},
          {"device", pipe.traits().name},
          {"dtype", std::string(dtype_name(pipe.activation_dtype()))},
          {"arithmetic", pipe.arithmetic()},
          {"width", loaded.request.width},
          {"height", loaded.request.height},
          {"steps", loaded.request.steps},
          {"images", loaded.request.image_count},
          {"guidance_scale", loaded.request.guidance_scale}};
}

void print_title(const Loaded& loaded) {
  const pipeline::Pipeline& pipe = *loaded.pipeline;
  std::printf("\n%s, %dx%d, %d steps, guidance %g, %s on %s\n", pipe.capabilities().model_name.c_str(),
              loaded.request.width, loaded.request.height, loaded.request.steps, loaded.request.guidance_scale,
              pipe.arithmetic().c_str(), pipe.traits().name.c_str());
}

boost::json::array json_of(const std::vector<ops::OpProfileRow>& rows, double per, const ops::Roofline& roofline) {
  boost::json::array out;
  for (const ops::OpProfileRow& row : rows) {
    out.push_back({{"op", row.op},
                   {"row", row.row},
                   {"shape", row.cost.shape},
                   {"calls", row.calls / per},
                   {"ms", row.seconds / per * 1e3},
                   {"floor_ms", roofline.floor_seconds(row.cost) * row.calls / per * 1e3},
                   {"flops", row.cost.flops},
                   {"bytes", row.cost.bytes}});
  }
  return out;
}

void print_rows(const char* title, const std::vector<ops::OpProfileRow>& rows, double per,
                const ops::Roofline& roofline) {
  double total = 0, floor = 0;
  for (const auto& row : rows) {
    total += row.seconds / per;
    floor += roofline.floor_seconds(row.cost) * row.calls / per;
  }
  std::printf("\n%s: %.3f ms in ops%s\n", title, total * 1e3,
              floor > 0 ? fmt::format(", floor {:.3f} ms", floor * 1e3).c_str() : "");
  std::printf("%9s %6s %6s %9s %8s %7s %6s  %s\n", "ms", "share", "calls", "us each", "TFLOP/s", "GB/s", "floor",
              "op, row, shape");
  for (const auto& row : rows) {
    const double each = row.seconds / row.calls;
    const double least = roofline.floor_seconds(row.cost);
    std::printf("%9.3f %5.1f%% %6.4g %9.1f %8s %7.0f %6s  %s %s, %s\n", row.seconds / per * 1e3,
                100 * row.seconds / per / total, row.calls / per, each * 1e6,
                row.cost.flops > 0 ? fmt::format("{:.1f}", row.cost.flops / each * 1e-12).c_str() : "",
                row.cost.bytes / each * 1e-9, least > 0 ? fmt::format("{:.0f}%", 100 * least / each).c_str() : "",
                row.op.c_str(), row.row.c_str(), row.cost.shape.c_str());
  }
}

}  // namespace

Result<boost::json::value> bench_picture(const ModelBench& bench) {
  OCTAVO_ASSIGN_OR_RETURN(const Loaded loaded, load(bench, ""));
  OCTAVO_ASSIGN_OR_RETURN(const Rounds rounds, run_rounds(loaded, bench.repeat));
  print_title(loaded);
  std::printf("load %.3f s, first picture %.3f s", loaded.load_seconds, rounds.first_seconds);
  if (rounds.first_age > 0) std::printf(", %.2f s after the process's start", rounds.first_age);
  std::printf("; %d rounds after it\n", bench.repeat);

  std::printf("%-14s %10s %10s %8s\n", "stage", "median ms", "best ms", "share");
  const double total = rounds.stage(telemetry::kTotal);
  boost::json::object stages;
  for (const std::string_view stage : telemetry::kStages) {
    const auto found = rounds.stages.find(std::string(stage));
    if (found == rounds.stages.end()) continue;
    const double typical = median(found->second), least = best(found->second);
    std::printf("%-14s %10.2f %10.2f %7.1f%%\n", found->first.c_str(), typical * 1e3, least * 1e3,
                100 * typical / total);
    stages[found->first] = {{"median_seconds", typical}, {"best_seconds", least}};
  }
  const double step_ms = median(rounds.steps) * 1e3;
  std::printf("%-14s %10.2f %10.2f\n", "step", step_ms, best(rounds.steps) * 1e3);
  if (loaded.request.image_count > 1) {
    const int together = loaded.pipeline->images_per_forward(loaded.request);
    std::printf("%d pictures, up to %d in a forward: %.2f ms each\n", loaded.request.image_count, together,
                total / loaded.request.image_count * 1e3);
  }
  boost::json::object report = describe(loaded);
  report["load_seconds"] = loaded.load_seconds;
  report["first_picture_seconds"] = rounds.first_seconds;
  report["start_to_first_picture_seconds"] = rounds.first_age;
  report["step_ms"] = step_ms;
  report["best_step_ms"] = best(rounds.steps) * 1e3;
  report["images_per_forward"] = loaded.pipeline->images_per_forward(loaded.request);
  report["seconds_per_picture"] = total / loaded.request.image_count;
  report["peak_memory_mib"] = host_peak_mib();
  report["stages"] = std::move(stages);
  if (loaded.pipeline->traits().kind == device::DeviceKind::kCuda) {
    const device::MemoryStatistics& memory = rounds.memory;
    std::printf("peak memory: GPU %.0f MiB in use, %.0f MiB taken; host %.0f MiB\n",
                static_cast<double>(memory.peak_used_bytes) / kMiB,
                static_cast<double>(memory.peak_reserved_bytes) / kMiB, host_peak_mib());
    std::printf("allocations by the driver after the first picture: %llu\n",
                static_cast<unsigned long long>(rounds.allocations_after_first));
    report["device_peak_used_mib"] = static_cast<double>(memory.peak_used_bytes) / kMiB;
    report["device_peak_reserved_mib"] = static_cast<double>(memory.peak_reserved_bytes) / kMiB;
    report["driver_allocations_after_first"] = rounds.allocations_after_first;
  } else {
    std::printf("peak memory %.0f MiB\n", host_peak_mib());
  }
  std::fflush(stdout);
  return boost::json::value(std::move(report));
}

Result<boost::json::value> bench_ops_of_model(const ModelBench& bench) {
  OCTAVO_ASSIGN_OR_RETURN(const Loaded loaded, load(bench, ""));
  pipeline::Pipeline& pipe = *loaded.pipeline;
  generation::GenerationRequest request = loaded.request;
  request.steps = kProfiledSteps + 2;  // the first chooses kernels, the last one's end is the loop's
  OCTAVO_RETURN_IF_ERROR(pipe.generate(request, {}).status());
  std::vector<double> replayed;  // as pictures are drawn, without a profile
  {
    generation::RunControl control;
    auto last = Clock::now();
    control.on_progress = [&](const generation::Progress& progress) {
      const auto now = Clock::now();
      if (progress.stage == telemetry::kDenoise && progress.step > 1) replayed.push_back(seconds(now - last));
      last = now;
    };
    OCTAVO_RETURN_IF_ERROR(pipe.generate(request, control).status());
  }

  ops::OpProfile profile;
  std::vector<ops::OpProfileRow> text, step, decode;
  double step_span = 0;
  // Forgotten whatever happens: the profile dies before the pipeline does.
  struct Observing {
    pipeline::Pipeline& pipe;
    Observing(pipeline::Pipeline& to, device::OpObserver* observer) : pipe(to) { pipe.set_op_observer(observer); }
    ~Observing() { pipe.set_op_observer(nullptr); }
  };
  {
    const Observing observing(pipe, &profile);
    generation::RunControl control;
    control.on_progress = [&](const generation::Progress& progress) {
      if (progress.stage != telemetry::kDenoise) {
        if (progress.stage == telemetry::kDecode) profile.clear();
        return;
      }
      if (progress.step == 1) {
        text = profile.rows();
        profile.clear();
      } else if (progress.step == 1 + kProfiledSteps) {
        step = profile.rows();
        step_span = profile.span_seconds();
      }
    };
    pipe.clear_prompt_cache();
    OCTAVO_RETURN_IF_ERROR(pipe.generate(request, control).status());
    decode = profile.rows();
  }
  const ops::Roofline roofline = ops::roofline_of(pipe.traits());
  print_title(loaded);
  print_rows("text, conditioning and the first step", text, 1, roofline);
  print_rows("decode", decode, 1, roofline);
  print_rows("step", step, kProfiledSteps, roofline);
  std::printf("step: %.3f ms from its first op to its last, one op at a time; %.3f ms as pictures are drawn (%s)\n",
              step_span / kProfiledSteps * 1e3, median(replayed) * 1e3,
              pipe.traits().kind == device::DeviceKind::kCuda ? "a captured graph, text beside image" : "the same ops");
  std::fflush(stdout);
  boost::json::object report = describe(loaded);
  report["replayed_step_ms"] = median(replayed) * 1e3;
  report["observed_step_ms"] = step_span / kProfiledSteps * 1e3;
  report["text_and_first_step"] = json_of(text, 1, roofline);
  report["step"] = json_of(step, kProfiledSteps, roofline);
  report["decode"] = json_of(decode, 1, roofline);
  return boost::json::value(std::move(report));
}

Result<boost::json::value> bench_residency(const ModelBench& bench) {
  // The least first: peaks are those of the process, so each mode must need more than the ones before.
  struct Mode {
    std::string vram;
    Rounds rounds;
    double load_seconds = 0;
  };
  std::vector<Mode> modes;
  boost::json::array report;
  for (const char* vram : {"min", "balanced", "full"}) {
    OCTAVO_ASSIGN_OR_RETURN(const Loaded loaded, load(bench, vram));
    if (loaded.pipeline->traits().kind != device::DeviceKind::kCuda) {
      return invalid_argument("--suite", "vram is about a GPU's memory, and the device is the CPU");
    }
    if (modes.empty()) print_title(loaded);
    OCTAVO_ASSIGN_OR_RETURN(Rounds rounds, run_rounds(loaded, bench.repeat));
    boost::json::object one = describe(loaded);
    one["vram"] = vram;
    one["load_seconds"] = loaded.load_seconds;
    one["first_picture_seconds"] = rounds.first_seconds;
    one["encode_text_seconds"] = rounds.stage(telemetry::kEncodeText);
    one["step_ms"] = median(rounds.steps) * 1e3;
    one["decode_seconds"] = rounds.stage(telemetry::kDecode);
    one["total_seconds"] = rounds.stage(telemetry::kTotal);
    one["device_peak_used_mib"] = static_cast<double>(rounds.memory.peak_used_bytes) / kMiB;
    one["driver_allocations_after_first"] = rounds.allocations_after_first;
    one["host_peak_mib"] = host_peak_mib();
    report.push_back(std::move(one));
    modes.push_back({vram, std::move(rounds), loaded.load_seconds});
  }
  std::printf("%-10s %10s %8s %9s %8s %8s %8s %8s %12s\n", "--vram", "peak GiB", "load s", "first s", "text ms",
              "step ms", "vae ms", "image s", "allocations");
  for (const Mode& mode : modes) {
    std::printf("%-10s %10.2f %8.2f %9.2f %8.1f %8.2f %8.1f %8.3f %12llu\n", mode.vram.c_str(),
                static_cast<double>(mode.rounds.memory.peak_used_bytes) / kMiB / 1024, mode.load_seconds,
                mode.rounds.first_seconds, mode.rounds.stage(telemetry::kEncodeText) * 1e3,
                median(mode.rounds.steps) * 1e3, mode.rounds.stage(telemetry::kDecode) * 1e3,
                mode.rounds.stage(telemetry::kTotal),
                static_cast<unsigned long long>(mode.rounds.allocations_after_first));
  }
  std::fflush(stdout);
  return boost::json::value(std::move(report));
}

}  // namespace octavo::app
