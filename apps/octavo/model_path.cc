#include "model_path.h"

#include <cstdlib>
#include <vector>

namespace octavo::app {

Result<std::filesystem::path> find_model(const std::string& given) {
  namespace fs = std::filesystem;
  if (!given.empty()) return fs::path(given);
  if (const char* from_environment = std::getenv("OCTAVO_MODEL"); from_environment != nullptr && *from_environment) {
    return fs::path(from_environment);
  }
  std::error_code error;
  const fs::path executable = fs::read_symlink("/proc/self/exe", error);
  std::vector<fs::path> tried;
  fs::path folder = executable.parent_path();
  // build/<preset>/octavo and build/<preset>/apps/octavo/octavo both lie at most four levels below the source tree.
  for (int level = 0; level < 5 && !folder.empty(); ++level, folder = folder.parent_path()) {
    for (const fs::path& candidate : {folder / "models/octavo-tiny", folder / "share/octavo/models/octavo-tiny"}) {
      if (fs::exists(candidate / "model_index.json", error)) return candidate;
      tried.push_back(candidate);
    }
    if (folder == folder.root_path()) break;
  }
  std::string places;
  for (const fs::path& place : tried) places += "\n  " + place.string();
  return not_found("--model", "no model given and the embedded octavo-tiny was not found in any of:" + places);
}

}  // namespace octavo::app
