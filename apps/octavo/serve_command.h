// octavo serve: the command around run_server (serve.h).
#pragma once

#include <CLI/CLI.hpp>

namespace octavo::app {

/// Registers `serve`; sets exit_code when it runs.
void add_serve(CLI::App& app, int& exit_code);

}  // namespace octavo::app
