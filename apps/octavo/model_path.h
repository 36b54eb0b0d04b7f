// Where --model points when it is not given.
#pragma once

#include <filesystem>
#include <string>

#include "base/status.h"

namespace octavo::app {

/// `given` itself when not empty; else $OCTAVO_MODEL; else the embedded octavo-tiny, looked for beside the executable
/// (an installed share/octavo/models, or the source tree around a build folder). kNotFound lists the places tried.
Result<std::filesystem::path> find_model(const std::string& given);

}  // namespace octavo::app
