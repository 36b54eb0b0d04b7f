// What one run leaves on disk for the next: floats and pixels in files of a work folder, one a picture and kind. The
// same program writes and reads them, on one machine, so they carry nothing but lengths; what is cut short is refused.
#pragma once

#include <filesystem>
#include <fstream>
#include <vector>

#include "base/status.h"
#include "image/image.h"
#include "pipeline/pipeline.h"
#include "quantize/compare/comparison.h"

namespace octavo::quantize {

/// A call of the transformer and what came of it.
struct AnsweredCall {
  pipeline::ModelCall call;
  std::vector<float> velocity;
};

/// Appends calls one by one, so that a picture's are never in memory at once.
class CallWriter {
 public:
  explicit CallWriter(const std::filesystem::path& path) : path_(path), file_(path, std::ios::binary) {}
  void add(int step, float sigma, const TensorView& latents, const TensorView& velocity);
  /// kResourceExhausted when something could not be written.
  Status finish();

 private:
  std::filesystem::path path_;
  std::ofstream file_;
};
Result<std::vector<AnsweredCall>> read_calls(const std::filesystem::path& path);

Status write_floats(const std::filesystem::path& path, const std::vector<std::vector<float>>& rows);
Result<std::vector<std::vector<float>>> read_floats(const std::filesystem::path& path);

/// Where a picture ended.
struct RunEnd {
  std::vector<float> latents;
  image::Image picture;
};
Status write_end(const std::filesystem::path& path, const RunEnd& end);
Result<RunEnd> read_end(const std::filesystem::path& path);

/// What the floor's runs measured of a picture: bf16 against f32, and the last of the two that was drawn against A.
struct FloorErrors {
  std::vector<CallError> floor, against_a;
};
Status write_errors(const std::filesystem::path& path, const FloorErrors& errors);
Result<FloorErrors> read_errors(const std::filesystem::path& path);

}  // namespace octavo::quantize
