#include "quantize/layer_error.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tensor/quantized.h"

namespace octavo::quantize {
namespace {

constexpr std::int64_t kPortionElements = std::int64_t{1} << 20;

struct Matrix {
  std::int64_t rows, columns;
  std::vector<float> values;
};

/// Codes of a matrix and back, with scales measured in it or, for kTensor, given.
void round_through(Matrix& matrix, DType format, ScaleGrain grain, float tensor_amax) {
  const Shape shape{matrix.rows, matrix.columns};
  const TensorView view(matrix.values.data(), DType::kF32, shape);
  std::vector<std::byte> codes(matrix.values.size());
  const Shape scales = scale_shape(grain, matrix.rows, matrix.columns);
  std::vector<float> scale(static_cast<std::size_t>(scales.element_count()));
  const QuantizedView quantized{TensorView(codes.data(), format, shape), TensorView(scale.data(), DType::kF32, scales),
                                grain};
  if (grain == ScaleGrain::kTensor) {
    scale[0] = dequant_scale_of(tensor_amax, format);
    encode_rows(view, quantized);
  } else {
    quantize_rows(view, quantized);
  }
  dequantize_rows(quantized, view);
}

/// out[m, n] = sum_k x[m, k] w[n, k]; partial sums in f32 of 64 products, so that their own rounding is far below what
/// is measured.
std::vector<double> product(const Matrix& x, const Matrix& w) {
  constexpr std::int64_t kPartial = 64;
  std::vector<double> out(static_cast<std::size_t>(x.rows * w.rows));
  for (std::int64_t m = 0; m < x.rows; ++m) {
    const float* a = x.values.data() + m * x.columns;
    for (std::int64_t n = 0; n < w.rows; ++n) {
      const float* b = w.values.data() + n * w.columns;
      double sum = 0;
      for (std::int64_t begin = 0; begin < x.columns; begin += kPartial) {
        const std::int64_t end = std::min(begin + kPartial, x.columns);
        float partial[8] = {};
        std::int64_t k = begin;
        for (; k + 8 <= end; k += 8) {
          for (int lane = 0; lane < 8; ++lane) partial[lane] += a[k + lane] * b[k + lane];
        }
        for (; k < end; ++k) partial[0] += a[k] * b[k];
        for (const float lane : partial) sum += static_cast<double>(lane);
      }
      out[static_cast<std::size_t>(m * w.rows + n)] = sum;
    }
  }
  return out;
}

void round_to_bf16(Matrix& matrix) {
  for (float& value : matrix.values) value = to_float(to_bfloat16(value));
}

/// Moves the columns into a matrix of their own, leaving zeros.
Matrix take_columns(Matrix& from, const std::vector<int>& columns) {
  Matrix taken{from.rows, static_cast<std::int64_t>(columns.size()), {}};
  for (std::int64_t row = 0; row < from.rows; ++row) {
    for (const int column : columns) {
      float& value = from.values[static_cast<std::size_t>(row * from.columns + column)];
      taken.values.push_back(value);
      value = 0.0f;
    }
  }
  return taken;
}

}  // namespace

Result<WeightSample> sample_weight(const weights::TensorSource& source, std::size_t part, const std::string& layer) {
  const auto& tensors = source.parts()[part].tensors;
  const auto found = std::find_if(tensors.begin(), tensors.end(), [&](const weights::SourceTensor& tensor) {
    return tensor.name == layer + ".weight";
  });
  OCTAVO_CHECK(found != tensors.end() && found->shape.rank() == 2, "{} is no product of the model", layer);
  const auto index = static_cast<std::size_t>(found - tensors.begin());
  const std::int64_t N = found->shape[0], K = found->shape[1];
  WeightSample sample{.rows = std::min(N, WeightSample::kMeasuredRows), .channels = K};
  sample.channel_amax.assign(static_cast<std::size_t>(K), 0.0f);
  const std::int64_t portion = std::max<std::int64_t>(1, kPortionElements / K);
  std::vector<float> rows;
  std::int64_t taken = 0;
  for (std::int64_t begin = 0; begin < N; begin += portion) {
    const std::int64_t count = std::min(portion, N - begin);
    rows.resize(static_cast<std::size_t>(count * K));
    OCTAVO_RETURN_IF_ERROR(
        source.read(part, index, begin * K, count * K, DType::kF32, reinterpret_cast<std::byte*>(rows.data())));
    for (std::int64_t row = 0; row < count; ++row) {
      const float* values = rows.data() + row * K;
      for (std::int64_t k = 0; k < K; ++k) {
        if (!std::isfinite(values[k])) {
          return data_corruption(layer + ".weight",
                                 fmt::format("holds {} at row {}, column {}", values[k], begin + row, k));
        }
        float& amax = sample.channel_amax[static_cast<std::size_t>(k)];
        amax = std::max(amax, std::fabs(values[k]));
      }
      if (taken < sample.rows && begin + row == taken * N / sample.rows) {
        sample.values.insert(sample.values.end(), values, values + K);
        ++taken;
      }
    }
  }
  source.release(part, index);
  return sample;
}

InputSample sample_of(std::span<const InputStatistics* const> inputs) {
  InputSample sample;
  for (const InputStatistics* input : inputs) {
    sample.rows += input->sample_rows();
    sample.channels = input->channels;
    for (const BFloat16 value : input->sample) sample.values.push_back(to_float(value));
  }
  return sample;
}

double output_error(const LayerRecipe& recipe, const InputSample& input, const WeightSample& weight) {
  OCTAVO_CHECK(input.channels == weight.channels, "{}: {} channels meet {}", recipe.layer, input.channels,
               weight.channels);
  Matrix x{input.rows, input.channels, input.values}, w{weight.rows, weight.channels, weight.values};
  const std::vector<double> exact = product(x, w);

  std::vector<float> weight_amax = weight.channel_amax;
  if (!recipe.smooth.empty()) {
    for (std::size_t i = 0; i < x.values.size(); ++i) x.values[i] /= recipe.smooth[i % recipe.smooth.size()];
    for (std::size_t i = 0; i < w.values.size(); ++i) w.values[i] *= recipe.smooth[i % recipe.smooth.size()];
    for (std::size_t k = 0; k < weight_amax.size(); ++k) weight_amax[k] *= recipe.smooth[k];
  }
  Matrix split_x = take_columns(x, recipe.outliers), split_w = take_columns(w, recipe.outliers);
  for (const int column : recipe.outliers) weight_amax[static_cast<std::size_t>(column)] = 0.0f;
  round_through(w, recipe.format, recipe.weight_grain, *std::max_element(weight_amax.begin(), weight_amax.end()));
  switch (recipe.activations) {
    case Activations::kToken:
      round_through(x, recipe.activation_format, ScaleGrain::kRow, 0.0f);
      break;
    case Activations::kBlock:
      round_through(x, recipe.activation_format, ScaleGrain::kBlock128, 0.0f);
      break;
    case Activations::kStatic:
      round_through(x, recipe.activation_format, ScaleGrain::kTensor, recipe.static_amax);
      break;
    case Activations::kNone:
      break;  // the kept tokens are bf16 already
  }
  std::vector<double> rounded = product(x, w);
  if (!recipe.outliers.empty()) {
    round_to_bf16(split_x);
    round_to_bf16(split_w);
    const std::vector<double> split = product(split_x, split_w);
    for (std::size_t i = 0; i < rounded.size(); ++i) rounded[i] += split[i];
  }
  double error = 0, power = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    error += (exact[i] - rounded[i]) * (exact[i] - rounded[i]);
    power += exact[i] * exact[i];
  }
  return power > 0 ? error / power : 0.0;
}

}  // namespace octavo::quantize
