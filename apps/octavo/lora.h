// The command `octavo lora`.
#pragma once

#include <CLI/CLI.hpp>

namespace octavo::app {

/// Adds the command; running it sets `exit_code`.
void add_lora(CLI::App& app, int& exit_code);

}  // namespace octavo::app
