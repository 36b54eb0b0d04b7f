#include "quantize/judge/detector.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>

#include "base/check.h"
#include "base/sha256.h"
#include "tensor/convert.h"
#include "weights/safetensors.h"

namespace octavo::quantize {
namespace {

// As tools/tiny/detector.py and catalogue.py have them.
constexpr int kSide = 128;  // pixels of the shorter side that the network sees
constexpr int kCell = 16;
constexpr int kRows = 8;    // the background is told from what each eighth of the height holds
constexpr int kTints = 10;  // unpainted, and nine colours
constexpr int kBox = 3;     // x, y, log of the size
constexpr double kLeast = 0.4, kApart = 0.14;
constexpr double kNormEpsilon = 1e-5;  // torch.nn.BatchNorm2d's

void rectify(std::vector<float>& values) {
  for (float& value : values) value = std::max(value, 0.0f);
}

/// What one pixel of a smaller (or larger) axis is made of: PyTorch's bilinear filter with antialias, a triangle
/// widened by the scale when the axis shrinks.
struct Taps {
  int first = 0;
  std::vector<double> weights;
};
std::vector<Taps> taps_of(int from, int to) {
  const double scale = static_cast<double>(from) / to, reach = std::max(1.0, scale);
  std::vector<Taps> out;
  for (int i = 0; i < to; ++i) {
    const double centre = (i + 0.5) * scale;
    Taps taps{.first = std::max(0, static_cast<int>(std::floor(centre - reach + 0.5))), .weights = {}};
    const int end = std::min(from, static_cast<int>(std::floor(centre + reach + 0.5)));
    for (int j = taps.first; j < end; ++j) {
      taps.weights.push_back(std::max(0.0, 1 - std::abs((j - centre + 0.5) / reach)));
    }
    const double sum = std::accumulate(taps.weights.begin(), taps.weights.end(), 0.0);
    for (double& weight : taps.weights) weight /= sum;
    out.push_back(std::move(taps));
  }
  return out;
}

int argmax(const float* values, int count) {
  return static_cast<int>(std::max_element(values, values + count) - values);
}

}  // namespace

struct Detector::Loader {
  const weights::SafetensorsFile& file;
  Status status;  // the first thing that is wrong

  std::vector<float> take(const std::string& name, const Shape& shape) {
    const auto found = file.tensors().find(name);
    if (found == file.tensors().end() || !(found->second.shape == shape)) {
      if (status.ok()) {
        status = data_corruption(file.path().string(),
                                 fmt::format("is not a detector of this catalogue: {} {}; train it anew with "
                                             "tools/tiny/train_detector.py",
                                             name, found == file.tensors().end() ? "is missing" : "has another shape"));
      }
      return std::vector<float>(static_cast<std::size_t>(shape.element_count()));
    }
    const auto view = file.view(found->second);
    std::vector<float> values(static_cast<std::size_t>(shape.element_count()));
    if (!view.ok() || !is_floating(view->dtype())) {
      if (status.ok()) status = data_corruption(file.path().string(), name + " does not hold numbers");
      return values;
    }
    convert_elements(static_cast<const std::byte*>(view->data()), view->dtype(),
                     reinterpret_cast<std::byte*>(values.data()), DType::kF32, shape.element_count());
    return values;
  }

  static Convolution arranged(int in, int out, int kernel, int stride, const std::vector<float>& weights,
                              const std::vector<double>& factors, std::vector<float> bias) {
    Convolution made{kernel, stride, in, out, std::vector<float>(weights.size()), std::move(bias)};
    for (int o = 0; o < out; ++o) {
      for (int i = 0; i < in; ++i) {
        for (int k = 0; k < kernel * kernel; ++k) {
          const std::size_t from = (static_cast<std::size_t>(o) * in + i) * kernel * kernel + k;
          const std::size_t to = (static_cast<std::size_t>(k) * in + i) * out + o;
          made.weights[to] = static_cast<float>(weights[from] * factors[static_cast<std::size_t>(o)]);
        }
      }
    }
    return made;
  }

  /// Convolution and batch norm, joined: the norm's averages are constants once it is trained.
  Convolution normed(const std::string& name, int in, int out, int kernel, int stride) {
    const std::vector<float> weights = take(name + ".0.weight", Shape{out, in, kernel, kernel});
    const std::vector<float> scale = take(name + ".1.weight", Shape{out}), shift = take(name + ".1.bias", Shape{out});
    const std::vector<float> mean = take(name + ".1.running_mean", Shape{out}),
                             variance = take(name + ".1.running_var", Shape{out});
    std::vector<double> factors;
    std::vector<float> bias;
    for (std::size_t o = 0; o < scale.size(); ++o) {
      factors.push_back(scale[o] / std::sqrt(variance[o] + kNormEpsilon));
      bias.push_back(static_cast<float>(shift[o] - mean[o] * factors.back()));
    }
    return arranged(in, out, kernel, stride, weights, factors, std::move(bias));
  }

  Convolution plain(const std::string& name, int in, int out) {
    const std::vector<float> weights = take(name + ".weight", Shape{out, in, 1, 1});
    return arranged(in, out, 1, 1, weights, std::vector<double>(static_cast<std::size_t>(out), 1.0),
                    take(name + ".bias", Shape{out}));
  }

  /// The first extent of a tensor, 0 when there is none.
  int rows(const std::string& name) const {
    const auto found = file.tensors().find(name);
    return found == file.tensors().end() || found->second.shape.rank() == 0 ? 0
                                                                            : static_cast<int>(found->second.shape[0]);
  }
};

Result<Detector> Detector::load(const std::filesystem::path& path) {
  OCTAVO_ASSIGN_OR_RETURN(const auto file, weights::SafetensorsFile::open(path));
  Loader loader{*file, {}};
  const int a = loader.rows("stem.0.0.weight"), b = loader.rows("stem.2.0.weight"), c = loader.rows("down.0.weight");
  const int answers = loader.rows("head.weight"), wide = loader.rows("wide.weight"),
            labels = loader.rows("background.weight");
  Detector detector;
  detector.objects_ = answers - 1 - kTints - kBox;
  if (std::min({a, b, c, wide, labels, detector.objects_}) < 1) {
    return data_corruption(path.string(), "is not a detector of tools/tiny/train_detector.py");
  }
  detector.stem_[0] = loader.normed("stem.0", 3, a, 4, 4);
  detector.stem_[1] = loader.normed("stem.1", a, a, 3, 1);
  detector.stem_[2] = loader.normed("stem.2", a, b, 3, 2);
  detector.middle_[0] = loader.normed("middle.first", b, b, 3, 1);
  detector.middle_[1] = loader.normed("middle.second", b, b, 3, 1);
  detector.down_ = loader.normed("down", b, c, 3, 2);
  detector.deep_[0] = loader.normed("deep.first", c, c, 3, 1);
  detector.deep_[1] = loader.normed("deep.second", c, c, 3, 1);
  detector.head_ = loader.plain("head", c, answers);
  detector.wide_ = loader.plain("wide", c, wide);
  detector.background_weights_ = loader.take("background.weight", Shape{labels, wide * kRows});
  detector.background_bias_ = loader.take("background.bias", Shape{labels});
  OCTAVO_RETURN_IF_ERROR(loader.status);
  std::ifstream bytes(path, std::ios::binary);
  detector.hash_ = sha256_hex(std::string((std::istreambuf_iterator<char>(bytes)), {}));
  return detector;
}

Detector::Map Detector::Convolution::operator()(const Map& x) const {
  OCTAVO_CHECK(x.channels == in, "{} channels for {}", x.channels, in);
  const int padding = kernel % 2 == 1 ? kernel / 2 : 0;
  Map y((x.height + 2 * padding - kernel) / stride + 1, (x.width + 2 * padding - kernel) / stride + 1, out);
  for (int row = 0; row < y.height; ++row) {
    for (int column = 0; column < y.width; ++column) {
      float* to = y.at(row, column);
      std::copy(bias.begin(), bias.end(), to);
      for (int ky = 0; ky < kernel; ++ky) {
        const int from_row = row * stride - padding + ky;
        if (from_row < 0 || from_row >= x.height) continue;
        for (int kx = 0; kx < kernel; ++kx) {
          const int from_column = column * stride - padding + kx;
          if (from_column < 0 || from_column >= x.width) continue;
          const float* from = x.at(from_row, from_column);
          const float* weight = weights.data() + static_cast<std::size_t>(ky * kernel + kx) * in * out;
          for (int i = 0; i < in; ++i, weight += out) {
            const float value = from[i];
            for (int o = 0; o < out; ++o) to[o] += value * weight[o];
          }
        }
      }
    }
  }
  return y;
}

/// The picture in [-1, 1], its shorter side 128, both sides multiples of a cell.
Detector::Map Detector::fitted(const image::Image& picture) {
  const int shorter = std::min(picture.width, picture.height);
  const auto side = [shorter](int length) {
    return std::max(kCell,
                    static_cast<int>(std::nearbyint(static_cast<double>(length) * kSide / shorter / kCell)) * kCell);
  };
  const int width = side(picture.width), height = side(picture.height);
  const std::vector<Taps> columns = taps_of(picture.width, width), rows = taps_of(picture.height, height);
  std::vector<double> narrow(static_cast<std::size_t>(picture.height) * width * 3);
  for (int y = 0; y < picture.height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) {
        double sum = 0;
        const Taps& taps = columns[static_cast<std::size_t>(x)];
        for (std::size_t k = 0; k < taps.weights.size(); ++k) {
          const std::size_t from = static_cast<std::size_t>(y) * picture.width + taps.first + k;
          sum += taps.weights[k] * picture.pixels[3 * from + c] / 255.0;
        }
        narrow[(static_cast<std::size_t>(y) * width + x) * 3 + c] = sum;
      }
    }
  }
  Map out(height, width, 3);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) {
        double sum = 0;
        const Taps& taps = rows[static_cast<std::size_t>(y)];
        for (std::size_t k = 0; k < taps.weights.size(); ++k) {
          sum += taps.weights[k] * narrow[((static_cast<std::size_t>(taps.first) + k) * width + x) * 3 + c];
        }
        out.at(y, x)[c] = static_cast<float>(sum * 2 - 1);
      }
    }
  }
  return out;
}

Reading Detector::read(const image::Image& picture) const {
  OCTAVO_CHECK(picture.channels == 3 && picture.width > 0 && picture.height > 0, "the detector reads RGB pictures");
  Map x = fitted(picture);
  const auto rectified = [](Map map) {
    rectify(map.values);
    return map;
  };
  const auto residual = [&](const Map& from, const Convolution(&pair)[2]) {
    Map y = pair[1](rectified(pair[0](from)));
    for (std::size_t i = 0; i < y.values.size(); ++i) y.values[i] += from.values[i];
    return rectified(std::move(y));
  };
  for (const Convolution& convolution : stem_) x = rectified(convolution(x));
  x = residual(rectified(down_(residual(x, middle_))), deep_);

  const Map wide = rectified(wide_(x));
  std::vector<float> pooled(static_cast<std::size_t>(wide.channels) * kRows);
  for (int row = 0; row < kRows; ++row) {
    const int begin = row * wide.height / kRows, end = ((row + 1) * wide.height + kRows - 1) / kRows;
    for (int c = 0; c < wide.channels; ++c) {
      double sum = 0;
      for (int y = begin; y < end; ++y) {
        for (int column = 0; column < wide.width; ++column) sum += wide.at(y, column)[c];
      }
      pooled[static_cast<std::size_t>(c) * kRows + row] = static_cast<float>(sum / ((end - begin) * wide.width));
    }
  }
  std::vector<float> labels = background_bias_;
  for (std::size_t label = 0; label < labels.size(); ++label) {
    for (std::size_t i = 0; i < pooled.size(); ++i) {
      labels[label] += background_weights_[label * pooled.size() + i] * pooled[i];
    }
  }

  Reading reading{.things = {}, .background = argmax(labels.data(), static_cast<int>(labels.size()))};
  const Map grid = head_(x);
  std::vector<int> order(static_cast<std::size_t>(grid.height) * grid.width);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int p, int q) {
    return grid.values[static_cast<std::size_t>(p) * grid.channels] >
           grid.values[static_cast<std::size_t>(q) * grid.channels];
  });
  for (const int cell : order) {
    const int row = cell / grid.width, column = cell % grid.width;
    const float* answer = grid.at(row, column);
    if (1 / (1 + std::exp(-static_cast<double>(answer[0]))) < kLeast) break;
    const float* box = answer + 1 + objects_ + kTints;
    const double at_x = (column + 0.5 + box[0]) * kCell / kSide, at_y = (row + 0.5 + box[1]) * kCell / kSide;
    const bool taken = std::any_of(reading.things.begin(), reading.things.end(), [&](const SeenThing& thing) {
      return std::abs(at_x - thing.x) <= kApart && std::abs(at_y - thing.y) <= kApart;
    });
    if (taken) continue;
    reading.things.push_back({argmax(answer + 1, objects_), at_x, at_y, std::exp(static_cast<double>(box[2])),
                              argmax(answer + 1 + objects_, kTints) - 1});
  }
  return reading;
}

}  // namespace octavo::quantize
