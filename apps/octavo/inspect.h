// octavo inspect: what a checkpoint is, part by part, and what is wrong with it.
#pragma once

#include <CLI/CLI.hpp>

namespace octavo::app {

/// Registers `inspect`; sets exit_code when it runs: 0 nothing wrong, 1 something is, 2 the path holds no checkpoint.
void add_inspect(CLI::App& app, int& exit_code);

}  // namespace octavo::app
