#include "bench.h"

#include <sys/resource.h>

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "compute_flags.h"
#include "device/device.h"
#include "model_path.h"
#include "ops/op_cases.h"
#include "pipeline/pipeline.h"
#include "telemetry/stages.h"

namespace octavo::app {
namespace {

struct BenchOptions {
  std::string suite = "all";
  ModelFlags model;
  std::string precision = "auto";
  std::string json_path;
  ComputeFlags compute;
  std::string op;
  bool references = false;
  int repeat = 5;
  generation::GenerationRequest request{.prompt = "three red apples on a blue background"};
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double peak_memory_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
}

boost::json::object describe_machine(const device::DeviceTraits& traits) {
  return {{"device", traits.name},
          {"threads", traits.thread_count},
          {"avx2", traits.has_avx2},
          {"avx512", traits.has_avx512},
          {"avx512_bf16", traits.has_avx512_bf16}};
}

Result<boost::json::object> run_e2e(const BenchOptions& options) {
  OCTAVO_ASSIGN_OR_RETURN(const auto files, find_model_files(options.model));
  OCTAVO_ASSIGN_OR_RETURN(const auto loading, load_options(options.compute, options.precision));
  const auto load_started = std::chrono::steady_clock::now();
  OCTAVO_ASSIGN_OR_RETURN(auto pipe, pipeline::load_pipeline(files, loading));
  const double load_seconds = seconds(std::chrono::steady_clock::now() - load_started);
  OCTAVO_ASSIGN_OR_RETURN(auto request, generation::resolve(options.request, pipe->capabilities()));

  const auto first_started = std::chrono::steady_clock::now();
  OCTAVO_ASSIGN_OR_RETURN(const auto first, pipe->generate(request, {}));  // warm-up: kernels are built, pages touched
  const double first_seconds = seconds(std::chrono::steady_clock::now() - first_started);
  (void)first;
  std::map<std::string, std::vector<double>> stages;
  for (int round = 0; round < options.repeat; ++round) {
    const auto started = std::chrono::steady_clock::now();
    pipe->clear_prompt_cache();  // every round encodes its text, as a new prompt would
    OCTAVO_ASSIGN_OR_RETURN(const auto result, pipe->generate(request, {}));
    stages[std::string(telemetry::kTotal)].push_back(seconds(std::chrono::steady_clock::now() - started));
    for (const auto& [stage, value] : result.stage_seconds) {
      if (stage != telemetry::kTotal) stages[stage].push_back(value);
    }
  }

  const double total = median(stages[std::string(telemetry::kTotal)]);
  std::printf("\n%s, %dx%d, %d steps, guidance %g, %s; load %.3f s, first picture %.3f s, %d rounds after it\n",
              pipe->capabilities().model_name.c_str(), request.width, request.height, request.steps,
              request.guidance_scale, pipe->arithmetic().c_str(), load_seconds, first_seconds, options.repeat);
  std::printf("%-14s %10s %10s %8s\n", "stage", "median ms", "best ms", "share");
  boost::json::object stage_json;
  for (const std::string_view stage : telemetry::kStages) {
    const auto found = stages.find(std::string(stage));
    if (found == stages.end()) continue;
    const double typical = median(found->second);
    const double best = *std::min_element(found->second.begin(), found->second.end());
    std::printf("%-14s %10.2f %10.2f %7.1f%%\n", found->first.c_str(), typical * 1e3, best * 1e3,
                100 * typical / total);
    stage_json[found->first] = {{"median_seconds", typical}, {"best_seconds", best}};
  }
  const double step_ms = median(stages[std::string(telemetry::kDenoise)]) / request.steps * 1e3;
  std::printf("%-14s %10.2f\n", "step", step_ms);
  std::printf("peak memory %.0f MiB\n", peak_memory_mib());
  return boost::json::object{{"model", pipe->capabilities().model_name},
                             {"dtype", std::string(dtype_name(pipe->activation_dtype()))},
                             {"arithmetic", pipe->arithmetic()},
                             {"width", request.width},
                             {"height", request.height},
                             {"steps", request.steps},
                             {"guidance_scale", request.guidance_scale},
                             {"load_seconds", load_seconds},
                             {"first_picture_seconds", first_seconds},
                             {"step_ms", step_ms},
                             {"peak_memory_mib", peak_memory_mib()},
                             {"stages", std::move(stage_json)}};
}

/// Every kernel row at octavo-tiny's shapes; products also against the library's bare kernel.
Result<boost::json::array> run_ops(device::Device& device, const BenchOptions& options) {
  ops::TimeOpsOptions timing;
  timing.op = options.op;
  timing.references = options.references;
  OCTAVO_ASSIGN_OR_RETURN(const auto timings, ops::time_ops(device, timing));
  std::printf("\n%-12s %-18s %-34s %10s %9s %8s %10s\n", "op", "row", "shape", "best us", "GFLOP/s", "GB/s",
              "of library");
  boost::json::array rows;
  for (const ops::OpTiming& one : timings) {
    const std::string share =
        one.library_seconds > 0 ? fmt::format("{:.0f}%", 100 * one.library_seconds / one.seconds) : "";
    std::printf("%-12s %-18s %-34s %10.1f %9.1f %8.1f %10s\n", one.op.c_str(), one.row.c_str(), one.shape.c_str(),
                one.seconds * 1e6, one.gflops_per_second(), one.gbytes_per_second(), share.c_str());
    rows.push_back({{"op", one.op},
                    {"row", one.row},
                    {"shape", one.shape},
                    {"seconds", one.seconds},
                    {"flops", one.flops},
                    {"bytes", one.bytes},
                    {"library_seconds", one.library_seconds}});
  }
  return rows;
}

Status run_bench(const BenchOptions& options) {
  if (options.suite != "e2e" && options.suite != "ops" && options.suite != "all") {
    return invalid_argument("--suite", "must be e2e, ops or all, not '" + options.suite + "'");
  }
  if (options.repeat < 1) return invalid_argument("--repeat", "must be at least 1");
  OCTAVO_ASSIGN_OR_RETURN(const device::DeviceChoice choice, device_choice(options.compute));
  OCTAVO_ASSIGN_OR_RETURN(const auto device, device::create_device(choice));
  std::printf("%s, %d threads\n", device->traits().name.c_str(), device->traits().thread_count);
  boost::json::object report{{"machine", describe_machine(device->traits())}};
  if (options.suite != "ops") {
    OCTAVO_ASSIGN_OR_RETURN(auto e2e, run_e2e(options));
    report["e2e"] = std::move(e2e);
  }
  if (options.suite != "e2e") {
    OCTAVO_ASSIGN_OR_RETURN(auto rows, run_ops(*device, options));
    report["ops"] = std::move(rows);
  }
  if (options.json_path == "-") {
    std::cout << boost::json::serialize(report) << "\n";
  } else if (!options.json_path.empty()) {
    std::ofstream file(options.json_path);
    file << boost::json::serialize(report) << "\n";
    if (!file.flush()) return resource_exhausted(options.json_path, "cannot be written");
  }
  return {};
}

}  // namespace

void add_bench(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* bench = app.add_subcommand("bench", "Time the stages of a picture and every kernel of every op");
  bench->add_option("--suite", options->suite, "e2e (stages of a picture), ops (kernels), all")->capture_default_str();
  add_model_flags(*bench, options->model);
  add_synthetic_flag(*bench, options->model);
  add_precision_flag(*bench, options->precision);
  add_compute_flags(*bench, options->compute);
  bench->add_option("--op", options->op, "Only this op (suite ops)");
  bench->add_flag("--references", options->references, "Time the plain reference rows too (slow)");
  bench->add_option("--repeat", options->repeat, "Timed rounds")->capture_default_str();
  options->request.steps = 20;
  options->request.seed = 0;
  bench->add_option("--prompt", options->request.prompt, "What is drawn")->capture_default_str();
  bench->add_option("--steps", options->request.steps, "Denoising steps")->capture_default_str();
  bench->add_option("--guidance", options->request.guidance_scale, "Guidance scale (default: the model's)");
  bench->add_option("--width", options->request.width, "Pixels (default: the model's)");
  bench->add_option("--height", options->request.height, "Pixels (default: the model's)");
  bench->add_option("--seed", options->request.seed, "Seed")->capture_default_str();
  bench->add_option("--json", options->json_path, "Also write the figures to this file (- = standard output)");
  bench->callback([options, &exit_code] {
    const Status status = run_bench(*options);
    if (!status.ok()) {
      std::fprintf(stderr, "octavo bench: %s\n", status.to_string().c_str());
      exit_code = 1;
    }
  });
}

}  // namespace octavo::app
