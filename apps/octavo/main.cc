// octavo: one binary, its commands wired to the libraries below. Nothing is computed here.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>

#include "base/log.h"
#include "bench.h"
#include "checkpoint.h"
#include "compare.h"
#include "device/cpu/idle_spinning.h"
#include "devices.h"
#include "generate.h"
#include "inspect.h"
#include "lora.h"
#include "quantize.h"
#include "serve_command.h"
#include "version.h"

int main(int argc, char** argv) {
  octavo::device::limit_idle_spinning(argv);  // first: it may start the program again
  octavo::initialise_logging();
  CLI::App app{"Octavo: Stable Diffusion 3.5, served"};
  app.set_version_flag("--version", octavo::app::kVersion);
  app.require_subcommand(1);
  app.footer(
      "OCTAVO_MODEL names the model when --model does not; OCTAVO_LOG=debug|info|warn|error sets the log level.");

  // A command fills in its exit code when it runs: 0 done, 1 refused or failed; CLI11 keeps over 100 for bad usage.
  int exit_code = 0;
  octavo::app::add_serve(app, exit_code);
  octavo::app::add_generate(app, exit_code);
  octavo::app::add_inspect(app, exit_code);
  octavo::app::add_checkpoint(app, exit_code);
  octavo::app::add_quantize(app, exit_code);
  octavo::app::add_compare(app, exit_code);
  octavo::app::add_lora(app, exit_code);
  octavo::app::add_bench(app, exit_code);
  octavo::app::add_devices(app, exit_code);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "octavo: %s\n", error.what());
    return 1;
  }
  return exit_code;
}
