// octavo bench: what a stage, an op and a kernel row cost on this machine.
#pragma once

#include <CLI/CLI.hpp>

namespace octavo::app {

/// Registers `bench`; sets exit_code when it runs.
void add_bench(CLI::App& app, int& exit_code);

}  // namespace octavo::app
