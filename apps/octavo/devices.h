// `octavo devices`: what there is to compute on.
#pragma once

#include <CLI/CLI.hpp>

namespace octavo::app {

void add_devices(CLI::App& app, int& exit_code);

}  // namespace octavo::app
