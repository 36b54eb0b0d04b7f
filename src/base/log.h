// Logging: spdlog on standard error, so that standard output stays for results.
// OCTAVO_LOG=debug|info|warn|error sets the level; the spdlog functions are safe from any thread.
#pragma once

#include <spdlog/spdlog.h>

namespace octavo {

/// Sets pattern, level and sink; call once from main before other threads start.
void initialise_logging();

}  // namespace octavo
