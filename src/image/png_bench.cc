// PNG levels on a picture like octavo-tiny's: flat background, smooth shapes, a little noise from the decoder.
#include <benchmark/benchmark.h>

#include <cmath>
#include <random>

#include "image/base64.h"
#include "image/png.h"

namespace octavo::image {
namespace {

Image drawn_picture(int side) {
  std::mt19937 random(1);
  std::normal_distribution<double> noise(0.0, 1.2);
  Image image{side, side, 3, {}};
  image.pixels.reserve(image.byte_count());
  for (int y = 0; y < side; ++y) {
    for (int x = 0; x < side; ++x) {
      const double distance = std::hypot(x - side / 2.0, y - side / 2.0) / side;
      for (int c = 0; c < 3; ++c) {
        const double background = 200 - 20 * c;
        const double shape = 60 + 50 * c + 40 * std::cos(12 * distance);
        const double value = (distance < 0.3 ? shape : background) + noise(random);
        image.pixels.push_back(static_cast<std::uint8_t>(std::lround(value)));
      }
    }
  }
  return image;
}

void encode(benchmark::State& state) {
  const Image image = drawn_picture(static_cast<int>(state.range(0)));
  std::size_t bytes = 0;
  for (auto _ : state) {
    bytes = encode_png(image, {}, {.compression_level = static_cast<int>(state.range(1))}).value().size();
  }
  state.counters["file_bytes"] = static_cast<double>(bytes);
}
BENCHMARK(encode)
    ->ArgNames({"side", "level"})
    ->ArgsProduct({{256, 1024}, {1, 2, 3, 4, 6, 9}})
    ->Unit(benchmark::kMillisecond);

void base64(benchmark::State& state) {
  const std::vector<std::uint8_t> bytes(128 * 1024, 0x5A);
  for (auto _ : state) benchmark::DoNotOptimize(base64_encode(bytes));
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * static_cast<std::int64_t>(bytes.size()));
}
BENCHMARK(base64);

}  // namespace
}  // namespace octavo::image
