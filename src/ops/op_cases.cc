#include "ops/op_cases.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>
#include <random>

#include "tensor/convert.h"

namespace octavo::ops {
namespace {

using ListCases = CaseList (*)(device::Device& device);

/// One entry a folder.
constexpr ListCases kCaseLists[] = {matmul_cases, attention_cases,  conv2d_cases,    group_norm_cases,
                                    norm_cases,   activation_cases, embedding_cases, patch_cases,
                                    sample_cases, cast_cases,       quantize_cases,  scaled_matmul_cases};

double best_seconds(const TimeOpsOptions& options, int repeats, const std::function<void()>& work) {
  using Clock = std::chrono::steady_clock;
  double best = 0;
  const auto begun = Clock::now();
  for (int i = 0;
       i < repeats || (repeats > 1 && std::chrono::duration<double>(Clock::now() - begun).count() < options.seconds);
       ++i) {
    const auto start = Clock::now();
    work();
    const double taken = std::chrono::duration<double>(Clock::now() - start).count();
    if (i == 0 || taken < best) best = taken;
  }
  return best;
}

/// The device's own time for `work`, which has run once: the program enqueues faster than the device computes in a
/// graph alone.
double device_seconds(device::Stream& stream, const TimeOpsOptions& options, const std::function<void()>& work) {
  constexpr int kReplays = 5;
  constexpr int kMostRepeats = 200;
  const auto timed = [&](const std::function<void()>& enqueue) {
    const auto begin = stream.record_event();
    enqueue();
    const auto end = stream.record_event();
    return end->seconds_since(*begin);
  };
  timed(work);  // what was chosen at the first call is in place
  const double once = timed(work);
  const int repeats = std::clamp(static_cast<int>(options.seconds / kReplays / std::max(once, 1e-6)), 1, kMostRepeats);
  const auto all = [&] {
    for (int i = 0; i < repeats; ++i) work();
  };
  std::unique_ptr<device::Graph> graph;
  if (stream.supports_capture()) {
    stream.begin_capture();
    all();
    graph = stream.end_capture();
  }
  std::vector<double> times;
  for (int i = 0; i <= kReplays; ++i) {
    const double taken = timed([&] { graph ? graph->launch() : all(); }) / repeats;
    if (i > 0) times.push_back(taken);  // the first brings the clocks up
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

/// Learns the scratch of `work` dry, then makes the arena that large.
Status prepare(device::Device& device, device::Arena& arena, const std::function<void()>& work) {
  arena.set_measuring(true);
  work();
  const std::size_t bytes = arena.peak_bytes();
  arena.set_measuring(false);
  return arena.reserve(device, bytes);
}

}  // namespace

TensorView CaseTensors::filled(DType dtype, const Shape& shape, const std::vector<float>& values) {
  TensorView view(static_cast<void*>(nullptr), dtype, shape);
  std::vector<std::byte> some(values.size() * dtype_size(dtype)), all(view.byte_count());
  if (is_floating(dtype)) {  // integers are zeros
    convert_elements(reinterpret_cast<const std::byte*>(values.data()), DType::kF32, some.data(), dtype,
                     static_cast<std::int64_t>(values.size()));
  }
  for (std::size_t at = 0; at < all.size(); at += some.size()) {
    std::memcpy(all.data() + at, some.data(), std::min(some.size(), all.size() - at));
  }
  auto buffer = device_.allocate(view.byte_count());
  if (!buffer.ok()) throw std::bad_alloc();
  const auto stream = device_.create_stream();
  device_.copy_to_device(*stream, buffer->data(), all.data(), all.size());
  stream->synchronize();
  view = TensorView(buffer->data(), dtype, shape);
  buffers_.push_back(std::move(*buffer));
  return view;
}

TensorView CaseTensors::constant(DType dtype, const Shape& shape, float value) {
  return filled(dtype, shape, std::vector<float>(1024, value));
}

TensorView CaseTensors::random(DType dtype, const Shape& shape, float spread) {
  constexpr std::int64_t kMostDrawn = 262147;  // a prime: rows of a large tensor differ
  std::mt19937 engine(seed_++);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> values(static_cast<std::size_t>(std::clamp<std::int64_t>(shape.element_count(), 1, kMostDrawn)));
  for (float& value : values) value = normal(engine);
  return filled(dtype, shape, values);
}

bool full_size(const DeviceTraits& traits) { return traits.kind == DeviceKind::kCuda; }

std::vector<DType> case_dtypes(const DeviceTraits& traits) {
  if (traits.kind == DeviceKind::kCuda) return {DType::kBF16};
  if (traits.has_avx512_bf16) return {DType::kF32, DType::kBF16};
  return {DType::kF32};
}

Result<std::vector<OpTiming>> time_ops(device::Device& device, const TimeOpsOptions& options) {
  std::vector<OpTiming> timings;
  const auto stream = device.create_stream();
  device::Arena arena;
  device::ExecutionContext context(device, *stream, arena);
  const Roofline roofline = roofline_of(device.traits());
  for (const ListCases list : kCaseLists) {
    OCTAVO_ASSIGN_OR_RETURN(const std::vector<OpCase> cases, list(device));
    for (const OpCase& one : cases) {
      if (!options.op.empty() && one.table->op() != options.op) continue;
      double library_seconds = 0;
      if (one.library_alone) {
        one.library_alone(context);
        library_seconds = best_seconds(options, options.repeats, [&] { one.library_alone(context); });
      }
      for (const std::string_view row : one.table->row_names()) {
        const bool reference = row == "reference";
        if (!one.supports(row) || (reference && !options.references)) continue;
        context.set_kernel_overrides({{std::string(one.table->op()), std::string(row)}});
        const auto work = [&] { one.run(context); };
        OCTAVO_RETURN_IF_ERROR(prepare(device, arena, work));
        if (!reference) work();
        const double taken = device.traits().kind == DeviceKind::kCpu
                                 ? best_seconds(options, reference ? 1 : options.repeats, work)
                                 : device_seconds(*stream, options, work);
        timings.push_back({.op = std::string(one.table->op()),
                           .row = std::string(row),
                           .shape = one.shape,
                           .seconds = taken,
                           .flops = one.flops,
                           .bytes = one.bytes,
                           .library_seconds = reference ? 0 : library_seconds,
                           .floor_seconds = roofline.floor_seconds(one.cost)});
      }
    }
  }
  return timings;
}

}  // namespace octavo::ops
