#include "serve_command.h"

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "compute_flags.h"
#include "model_path.h"
#include "pipeline/pipeline.h"
#include "serve.h"

namespace octavo::app {
namespace {

struct ServeFlags {
  ServeOptions server;
  ModelFlags model;
  std::string precision = "auto";
  ComputeFlags compute;
  long drain_seconds = 60;
  long job_limit_seconds = 0;
};

/// Draws one small picture, so that the first client does not pay for building kernels and touching pages.
Status warm_up(pipeline::Pipeline& pipe) {
  generation::GenerationRequest request;
  request.prompt = "warm-up";
  request.steps = 2;
  request.seed = 0;
  OCTAVO_ASSIGN_OR_RETURN(const auto resolved, generation::resolve(request, pipe.capabilities()));
  OCTAVO_RETURN_IF_ERROR(pipe.generate(resolved, {}).status());
  pipe.clear_prompt_cache();
  return {};
}

void print_how_to_call(const std::string& address, int port, const generation::Capabilities& can) {
  const std::string host = address == "0.0.0.0" || address == "::" ? "127.0.0.1" : address;
  std::printf(
      "\n%s is served at http://%s:%d  (AUTOMATIC1111's API; Ctrl-C finishes what runs and stops)\n\n"
      "  curl -s http://%s:%d/sdapi/v1/txt2img -H 'Content-Type: application/json' \\\n"
      "    -d '{\"prompt\": \"three red apples on a blue background\", \"width\": %d, \"height\": %d, \"steps\": 30, "
      "\"cfg_scale\": 7.0}' \\\n"
      "    | python3 -c 'import base64, json, sys; open(\"picture.png\", \"wb\").write("
      "base64.b64decode(json.load(sys.stdin)[\"images\"][0]))'\n\n",
      can.model_name.c_str(), host.c_str(), port, host.c_str(), port, can.default_width, can.default_height);
  std::fflush(stdout);
}

Status run_serve(ServeFlags flags) {
  if (flags.server.port < 0 || flags.server.port > 65535) {
    return invalid_argument("--port", std::to_string(flags.server.port) + " is outside 0 to 65535");
  }
  OCTAVO_ASSIGN_OR_RETURN(const auto loading, load_options(flags.compute, flags.precision));
  OCTAVO_ASSIGN_OR_RETURN(const auto files, find_model_files(flags.model));
  OCTAVO_ASSIGN_OR_RETURN(const auto pipe, pipeline::load_pipeline(files, loading));
  OCTAVO_RETURN_IF_ERROR(warm_up(*pipe));
  flags.server.drain_timeout = std::chrono::seconds(flags.drain_seconds);
  flags.server.job_time_limit = std::chrono::seconds(flags.job_limit_seconds);
  flags.server.on_listening = [address = flags.server.address, &pipe](int port) {
    print_how_to_call(address, port, pipe->capabilities());
  };
  return run_server(*pipe, flags.server);
}

}  // namespace

void add_serve(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<ServeFlags>();
  CLI::App* serve = app.add_subcommand("serve", "Serve AUTOMATIC1111's API");
  serve->add_option("--port", flags->server.port, "TCP port; 0 = any free one")->capture_default_str();
  serve->add_option("--address", flags->server.address, "Interface to listen on; 0.0.0.0 = all")->capture_default_str();
  add_model_flags(*serve, flags->model);
  add_synthetic_flag(*serve, flags->model);
  add_precision_flag(*serve, flags->precision);
  add_compute_flags(*serve, flags->compute);
  serve->add_option("--queue-limit", flags->server.queue_limit, "Jobs that may wait; more are refused with 503")
      ->capture_default_str();
  serve->add_option("--max-body-bytes", flags->server.max_body_bytes, "Largest request body; more is refused with 413")
      ->capture_default_str();
  serve->add_option("--max-connections", flags->server.max_connections, "Open connections; more are refused")
      ->capture_default_str();
  serve->add_option("--drain-seconds", flags->drain_seconds, "After SIGTERM: what runs may take this long")
      ->capture_default_str()
      ->check(CLI::Range(0, 86400));
  serve->add_option("--job-limit-seconds", flags->job_limit_seconds, "Longest run of one job (0 = no limit)")
      ->capture_default_str()
      ->check(CLI::Range(0, 86400));
  serve->callback([flags, &exit_code] {
    const Status status = run_serve(*flags);
    if (!status.ok()) {
      std::fprintf(stderr, "octavo serve: %s\n", status.to_string().c_str());
      exit_code = 1;
    }
  });
}

}  // namespace octavo::app
