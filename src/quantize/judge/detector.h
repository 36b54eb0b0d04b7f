// Detector: reads from a picture which objects stand where, how large and in which colour, before which background.
// The network of tools/tiny/detector.py, trained apart from every generator; here in plain f32 code on the CPU (85
// million multiplications a picture), so that octavo-tiny can be judged without Python.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/status.h"
#include "image/image.h"

namespace octavo::quantize {

/// A thing in a picture. Lengths in units of the shorter side.
struct SeenThing {
  int object = 0;  // row of tools/tiny/catalogue.py's OBJECTS
  double x = 0, y = 0;
  double size = 0;
  int tint = -1;  // row of TINTS; -1: in its own colours
};

struct Reading {
  std::vector<SeenThing> things;  // surest first
  int background = 0;             // row of LABELS
};

class Detector {
 public:
  /// A safetensors file of train_detector.py. kNotFound, kDataCorruption naming the file and the tensor.
  static Result<Detector> load(const std::filesystem::path& path);

  /// Requires an RGB picture. Equal to detector.py's read() of the same pixels to accumulation noise.
  Reading read(const image::Image& picture) const;

  const std::string& hash() const { return hash_; }  // SHA-256 of the file

 private:
  /// Values [height, width, channels].
  struct Map {
    Map(int h, int w, int c) : height(h), width(w), channels(c), values(static_cast<std::size_t>(h) * w * c) {}
    float* at(int y, int x) { return values.data() + (static_cast<std::size_t>(y) * width + x) * channels; }
    const float* at(int y, int x) const { return values.data() + (static_cast<std::size_t>(y) * width + x) * channels; }
    int height, width, channels;
    std::vector<float> values;
  };
  /// Weights [kernel, kernel, in, out], batch norm folded in.
  struct Convolution {
    int kernel = 0, stride = 1, in = 0, out = 0;
    std::vector<float> weights, bias;
    Map operator()(const Map& x) const;  // padded by kernel / 2 when the kernel is odd
  };
  struct Loader;

  static Map fitted(const image::Image& picture);

  Convolution stem_[3], middle_[2], down_, deep_[2], head_, wide_;
  std::vector<float> background_weights_, background_bias_;  // [labels, channels * rows]
  int objects_ = 0;
  std::string hash_;
};

}  // namespace octavo::quantize
