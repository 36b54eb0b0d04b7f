// octavo generate: pictures from a prompt, on this machine, without a server.
#pragma once

#include <CLI/CLI.hpp>

namespace octavo::app {

/// Registers `generate`; sets exit_code when it runs.
void add_generate(CLI::App& app, int& exit_code);

}  // namespace octavo::app
