// Where time goes, op by op: what each kernel row took at each shape, beside the least it can take.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/kernel_table.h"

namespace octavo::ops {

/// What an op has to do at a shape, by its definition.
struct OpCost {
  std::string shape;               // "image [2, 4096, 2432] -> 7296": names the call within its op
  double flops = 0;                // of products, convolutions and attention; 0 elsewhere: those move bytes
  double bytes = 0;                // inputs and outputs once, weights as stored
  DType multiplied = DType::kF32;  // what is multiplied, when flops are counted
};
OpCost cost_of(const device::AnyArgs& args);

/// The rates of a device that floors are counted with; zeros = unknown.
struct Roofline {
  double bytes_per_second = 0;       // measured: a copy, reads and writes counted
  double bf16_flops_per_second = 0;  // datasheet, dense
  double fp8_flops_per_second = 0;
  /// The least seconds that `cost` can take; 0 = unknown.
  double floor_seconds(const OpCost& cost) const;
};
/// Of an H100 SXM (copy 3.0 TB/s; 989 TFLOP/s in bf16, 1979 in FP8), an H200 (copy 4.3 TB/s, the same rates) and of
/// what has their names; else zeros.
Roofline roofline_of(const DeviceTraits& traits);

struct OpProfileRow {
  std::string op;
  std::string row;
  OpCost cost;  // of one call
  int calls = 0;
  double seconds = 0;  // of all calls
};

/// Records an event before and after each op. The figures are those of an op's own work only while enough is enqueued
/// ahead of the device; where it waits for the program, waiting is counted in.
class OpProfile final : public device::OpObserver {
 public:
  void before_op(ExecutionContext& context, std::string_view op, std::string_view row,
                 const device::AnyArgs& args) override;
  void after_op(ExecutionContext& context) override;

  /// Forgets what was recorded.
  void clear() { calls_.clear(); }
  /// By op, row and shape, the longest first; waits for the device.
  std::vector<OpProfileRow> rows() const;
  /// From the first op to the last.
  double span_seconds() const;

 private:
  struct Call {
    std::string_view op, row;
    OpCost cost;
    std::unique_ptr<device::Event> begin, end;
  };
  std::vector<Call> calls_;
  int depth_ = 0;  // an op that another op calls is that op's work
};

}  // namespace octavo::ops
