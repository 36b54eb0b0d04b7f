#include "ops/op_cases.h"

#include <chrono>
#include <cstring>
#include <new>
#include <random>

#include "ops/rows.h"

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

/// Learns the scratch of `work` dry, then makes the arena that large.
Status prepare(device::Device& device, device::Arena& arena, const std::function<void()>& work) {
  arena.set_measuring(true);
  work();
  const std::size_t bytes = arena.peak_bytes();
  arena.set_measuring(false);
  return arena.reserve(device, bytes);
}

}  // namespace

TensorView CaseTensors::zeros(DType dtype, const Shape& shape) {
  TensorView view(static_cast<void*>(nullptr), dtype, shape);
  auto buffer = device_.allocate(view.byte_count());
  if (!buffer.ok()) throw std::bad_alloc();
  std::memset(buffer->data(), 0, view.byte_count());
  view = TensorView(buffer->data(), dtype, shape);
  buffers_.push_back(std::move(*buffer));
  return view;
}

TensorView CaseTensors::random(DType dtype, const Shape& shape, float spread) {
  const TensorView view = zeros(dtype, shape);
  std::mt19937 engine(seed_++);
  std::normal_distribution<float> normal(0.0f, spread);
  const Row all(view.reshape(Shape{view.element_count()}), {});
  for (std::int64_t i = 0; i < view.element_count(); ++i) all.set(i, normal(engine));
  return view;
}

std::vector<DType> case_dtypes(const DeviceTraits& traits) {
  if (traits.has_avx512_bf16) return {DType::kF32, DType::kBF16};
  return {DType::kF32};
}

Result<std::vector<OpTiming>> time_ops(device::Device& device, const TimeOpsOptions& options) {
  std::vector<OpTiming> timings;
  const auto stream = device.create_stream();
  device::Arena arena;
  device::ExecutionContext context(device, *stream, arena);
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
        const double taken = best_seconds(options, reference ? 1 : options.repeats, work);
        timings.push_back({.op = std::string(one.table->op()),
                           .row = std::string(row),
                           .shape = one.shape,
                           .seconds = taken,
                           .flops = one.flops,
                           .bytes = one.bytes,
                           .library_seconds = reference ? 0 : library_seconds});
      }
    }
  }
  return timings;
}

}  // namespace octavo::ops
