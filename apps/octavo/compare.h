// octavo compare: two models, or two precisions of one, beside each other, with the noise floor beside both.
#pragma once

#include <CLI/CLI.hpp>

namespace octavo::app {

/// Registers `compare`; sets exit_code when it runs.
void add_compare(CLI::App& app, int& exit_code);

}  // namespace octavo::app
