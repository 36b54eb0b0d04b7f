// octavo checkpoint: whole checkpoints written, made up (synth) or from one layout into another (convert).
#pragma once

#include <CLI/CLI.hpp>

namespace octavo::app {

/// Registers `checkpoint`; sets exit_code when one of its commands runs.
void add_checkpoint(CLI::App& app, int& exit_code);

}  // namespace octavo::app
