// octavo quantize: 16-bit weights into FP8. So far the form that ComfyUI reads, with one scale a weight.
#pragma once

#include <CLI/CLI.hpp>

namespace octavo::app {

/// Registers `quantize`; sets exit_code when it runs.
void add_quantize(CLI::App& app, int& exit_code);

}  // namespace octavo::app
