#include "bench.h"

#include <boost/json.hpp>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "bench_model.h"
#include "device/device.h"
#include "ops/op_cases.h"
#include "ops/op_profile.h"

namespace octavo::app {
namespace {

struct BenchOptions {
  std::string suite = "all";
  ModelBench of_model;
  std::string json_path;
  std::string op;
  bool references = false;
};

boost::json::object describe_machine(const device::DeviceTraits& traits) {
  return {{"device", traits.name},
          {"threads", traits.thread_count},
          {"avx2", traits.has_avx2},
          {"avx512", traits.has_avx512},
          {"avx512_bf16", traits.has_avx512_bf16},
          {"compute_capability", traits.compute_capability}};
}

/// Every kernel row at a model's shapes; products also against the library's bare kernel, and all against the roofline
/// where it is known.
Result<boost::json::value> run_ops(device::Device& device, const BenchOptions& options) {
  ops::TimeOpsOptions timing;
  timing.op = options.op;
  timing.references = options.references;
  OCTAVO_ASSIGN_OR_RETURN(const auto timings, ops::time_ops(device, timing));
  std::printf("\n%-18s %-18s %-52s %10s %9s %8s %10s %7s\n", "op", "row", "shape", "us", "GFLOP/s", "GB/s",
              "of library", "floor");
  boost::json::array rows;
  for (const ops::OpTiming& one : timings) {
    const std::string share =
        one.library_seconds > 0 ? fmt::format("{:.0f}%", 100 * one.library_seconds / one.seconds) : "";
    const std::string floor =
        one.floor_seconds > 0 ? fmt::format("{:.0f}%", 100 * one.floor_seconds / one.seconds) : "";
    std::printf("%-18s %-18s %-52s %10.1f %9.1f %8.1f %10s %7s\n", one.op.c_str(), one.row.c_str(), one.shape.c_str(),
                one.seconds * 1e6, one.gflops_per_second(), one.gbytes_per_second(), share.c_str(), floor.c_str());
    rows.push_back({{"op", one.op},
                    {"row", one.row},
                    {"shape", one.shape},
                    {"seconds", one.seconds},
                    {"flops", one.flops},
                    {"bytes", one.bytes},
                    {"library_seconds", one.library_seconds},
                    {"floor_seconds", one.floor_seconds}});
  }
  std::fflush(stdout);
  return boost::json::value(std::move(rows));
}

Status run_bench(const BenchOptions& options) {
  const std::string& suite = options.suite;
  bool known = false;
  for (const char* one : {"e2e", "ops", "step", "vram", "all"}) known = known || suite == one;
  if (!known) return invalid_argument("--suite", "must be e2e, ops, step, vram or all, not '" + suite + "'");
  if (options.of_model.repeat < 1) return invalid_argument("--repeat", "must be at least 1");
  OCTAVO_ASSIGN_OR_RETURN(const device::DeviceChoice choice, device_choice(options.of_model.compute));
  OCTAVO_ASSIGN_OR_RETURN(const auto device, device::create_device(choice));
  const device::DeviceTraits& traits = device->traits();
  std::printf("%s, %d threads\n", traits.name.c_str(), traits.thread_count);
  std::fflush(stdout);
  boost::json::object report{{"machine", describe_machine(traits)}};
  const bool all = suite == "all", gpu = traits.kind == device::DeviceKind::kCuda;
  if (all || suite == "e2e") {
    OCTAVO_ASSIGN_OR_RETURN(report["e2e"], bench_picture(options.of_model));
  }
  if (suite == "step" || (all && gpu)) {
    OCTAVO_ASSIGN_OR_RETURN(report["step"], bench_ops_of_model(options.of_model));
  }
  if (suite == "vram" || (all && gpu)) {
    OCTAVO_ASSIGN_OR_RETURN(report["vram"], bench_residency(options.of_model));
  }
  if (all || suite == "ops") {
    OCTAVO_ASSIGN_OR_RETURN(report["ops"], run_ops(*device, options));
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
  ModelBench& of_model = options->of_model;
  generation::GenerationRequest& request = of_model.request;
  CLI::App* bench = app.add_subcommand("bench", "Time the stages of a picture and every kernel of every op");
  bench
      ->add_option("--suite", options->suite,
                   "e2e (stages of a picture), step (one step op by op), ops (every kernel), vram (peak and times of "
                   "each --vram; GPU), all")
      ->capture_default_str();
  add_model_flags(*bench, of_model.model);
  add_synthetic_flag(*bench, of_model.model);
  add_precision_flag(*bench, of_model.precision);
  bench->add_flag(
      "--static-scales", of_model.static_scales,
      "With --synthetic and --precision fp8: one scale a weight and a static one an input, as `octavo quantize "
      "--weights tensor --activations static` finds them for a real model");
  add_compute_flags(*bench, of_model.compute);
  bench->add_option("--op", options->op, "Only this op (suite ops)");
  bench->add_flag("--references", options->references, "Time the plain reference rows too (slow; CPU)");
  bench->add_option("--repeat", of_model.repeat, "Timed rounds")->capture_default_str();
  request.steps = 20;
  request.seed = 0;
  bench->add_option("--prompt", request.prompt, "What is drawn")->capture_default_str();
  bench->add_option("--steps", request.steps, "Denoising steps")->capture_default_str();
  bench->add_option("--guidance", request.guidance_scale, "Guidance scale (default: the model's)");
  bench->add_option("--width", request.width, "Pixels (default: the model's)");
  bench->add_option("--height", request.height, "Pixels (default: the model's)");
  bench->add_option("--batch", request.image_count, "Pictures of a call")->capture_default_str();
  bench->add_option("--seed", request.seed, "Seed")->capture_default_str();
  bench->add_option("--json", options->json_path, "Also write the figures to this file (- = standard output)");
  bench->footer(
      "Floors, on an H100 or H200: the larger of bytes / 3.0 or 4.3 TB/s (measured: a copy, reads and writes counted) "
      "and operations / 989 TFLOP/s in bf16 or 1979 in FP8 (the datasheet's dense rates, which no product reaches: 60 "
      "to 75 % is good). "
      "Ops on a GPU are timed in a captured graph of repeats; those of --suite step by events around each, without the "
      "text stream beside the image stream.");
  bench->callback([options, &exit_code] {
    const Status status = run_bench(*options);
    if (!status.ok()) {
      std::fprintf(stderr, "octavo bench: %s\n", status.to_string().c_str());
      exit_code = 1;
    }
  });
}

}  // namespace octavo::app
