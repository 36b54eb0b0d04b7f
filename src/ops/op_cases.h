// The ops at the shapes of a model (guidance: two rows), for `octavo bench`: what each kernel row costs. On the CPU the
// model is octavo-tiny at 256x256; on a GPU it is Stable Diffusion 3.5 Large at 1024x1024 where an op's time counts.
//
// An op joins with a function in its own folder (x_cases.cc) and one line in op_cases.cc.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ops/kernel_table.h"
#include "ops/op_profile.h"

namespace octavo::ops {

/// One op at one shape, with everything it reads and writes.
struct OpCase {
  const KernelTableBase* table = nullptr;
  std::string shape;  // "512x576x192 bf16": names the case within its op
  double flops = 0;   // multiplications and additions by the op's definition, whatever a kernel does
  double bytes = 0;   // inputs and outputs once, weights as stored
  OpCost cost;        // what floors are counted from
  /// The op with its arguments, by the row that the context chooses.
  std::function<void(ExecutionContext& context)> run;
  /// Whether a row supports the arguments here.
  std::function<bool(std::string_view row)> supports;
  /// The library's bare kernel at the same shape, without epilogue or widening; empty where there is none.
  std::function<void(ExecutionContext& context)> library_alone;
};

struct OpTiming {
  std::string op;
  std::string row;
  std::string shape;
  /// CPU: best of the repeats, what the machine can do undisturbed. GPU: median over replays of a captured graph of
  /// repeats, or of repeats in a stream for a row that cannot be captured.
  double seconds = 0;
  double flops = 0;
  double bytes = 0;
  double library_seconds = 0;  // of library_alone; 0 where there is none
  double floor_seconds = 0;    // by the device's roofline; 0 where that is not known
  double gflops_per_second() const { return flops / seconds * 1e-9; }
  double gbytes_per_second() const { return bytes / seconds * 1e-9; }
};

struct TimeOpsOptions {
  std::string op;           // only this one; empty = all
  bool references = false;  // time the reference rows too (seconds each)
  int repeats = 20;         // at least; a fast row runs until `seconds` have passed
  double seconds = 0.05;
};

/// Every row that this machine supports, of every case; allocates its own tensors. From any one thread.
Result<std::vector<OpTiming>> time_ops(device::Device& device, const TimeOpsOptions& options);

/// Tensors of a case on its device, owned by the case's closures through the shared pointer. They throw std::bad_alloc
/// when memory is short (a bench, not a service).
class CaseTensors {
 public:
  explicit CaseTensors(device::Device& device) : device_(device) {}
  /// Normal values, also as codes of e4m3 (a spread of 100 fills them); large tensors repeat some of them. Integers are
  /// zeros.
  TensorView random(DType dtype, const Shape& shape, float spread = 1.0f);
  TensorView constant(DType dtype, const Shape& shape, float value);
  TensorView zeros(DType dtype, const Shape& shape) { return constant(dtype, shape, 0.0f); }

 private:
  /// Filled with copies of `values` in that dtype, one after another.
  TensorView filled(DType dtype, const Shape& shape, const std::vector<float>& values);
  device::Device& device_;
  std::vector<device::Buffer> buffers_;
  unsigned seed_ = 1;
};

/// Fills in what follows from the table and the arguments: run and supports. `tensors` is what the arguments view.
template <typename Args>
OpCase make_case(const KernelTable<Args>& table, void (*op)(ExecutionContext&, const Args&), const DeviceTraits& traits,
                 std::shared_ptr<CaseTensors> tensors, Args args, std::string shape, double flops, double bytes) {
  OpCase result;
  result.table = &table;
  result.shape = std::move(shape);
  result.flops = flops;
  result.bytes = bytes;
  result.cost = cost_of(device::AnyArgs(args));
  result.run = [op, args, tensors = std::move(tensors)](ExecutionContext& context) { op(context, args); };
  result.supports = [&table, args, traits](std::string_view name) {
    for (const auto& row : table.rows()) {
      if (row.name == name) return row.device == traits.kind && (row.supports == nullptr || row.supports(args, traits));
    }
    return false;
  };
  return result;
}

/// Whether cases have the shapes of a full-size model here: on a GPU.
bool full_size(const DeviceTraits& traits);
/// The dtypes worth timing here: f32, and bf16 where the processor multiplies it; bf16 alone on a GPU.
std::vector<DType> case_dtypes(const DeviceTraits& traits);

using CaseList = Result<std::vector<OpCase>>;
CaseList matmul_cases(device::Device& device);
CaseList conv2d_cases(device::Device& device);
CaseList group_norm_cases(device::Device& device);
CaseList attention_cases(device::Device& device);
CaseList norm_cases(device::Device& device);
CaseList activation_cases(device::Device& device);
CaseList embedding_cases(device::Device& device);
CaseList patch_cases(device::Device& device);
CaseList sample_cases(device::Device& device);
CaseList cast_cases(device::Device& device);
CaseList quantize_cases(device::Device& device);
CaseList scaled_matmul_cases(device::Device& device);

}  // namespace octavo::ops
