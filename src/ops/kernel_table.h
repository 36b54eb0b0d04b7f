// KernelTable: the rows that can compute one op, best first, the plain reference last.
//
// A row is a name, a test of the arguments and a function. Tests compare every row with the reference, the bench
// times every row by name, and `--kernel <op>=<row>` forces one. A backend loaded at run time adds its rows at
// start-up, before the first op runs.
#pragma once

#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "device/execution_context.h"

namespace octavo::ops {

using device::DeviceKind;
using device::DeviceTraits;
using device::ExecutionContext;

template <typename Args>
struct KernelRow {
  std::string_view name;  // the idea: "onednn", "flash_avx512", "reference"
  DeviceKind device = DeviceKind::kCpu;
  /// Null = always.
  bool (*supports)(const Args& args, const DeviceTraits& traits) = nullptr;
  /// Bytes of scratch taken from the arena for the call; null = none. Asked in dry runs too, where tensors have no
  /// data.
  std::size_t (*scratch_bytes)(const ExecutionContext& context, const Args& args) = nullptr;
  /// Enqueues; never allocates after its first call with a shape, never synchronises.
  void (*run)(ExecutionContext& context, const Args& args, void* scratch) = nullptr;
};

/// What is common to all tables: listing and naming.
class KernelTableBase {
 public:
  explicit KernelTableBase(std::string_view op) : op_(op) {}
  virtual ~KernelTableBase() = default;
  std::string_view op() const { return op_; }
  virtual std::vector<std::string_view> row_names() const = 0;

 private:
  std::string_view op_;
};

template <typename Args>
class KernelTable final : public KernelTableBase {
 public:
  KernelTable(std::string_view op, std::initializer_list<KernelRow<Args>> rows) : KernelTableBase(op), rows_(rows) {}

  /// Put before the present rows; call before the first op runs.
  void add_rows(std::span<const KernelRow<Args>> rows) { rows_.insert(rows_.begin(), rows.begin(), rows.end()); }
  std::span<const KernelRow<Args>> rows() const { return rows_; }
  std::vector<std::string_view> row_names() const override {
    std::vector<std::string_view> names;
    for (const auto& row : rows_) names.push_back(row.name);
    return names;
  }

  /// The row that would run; a forced row must support the arguments.
  const KernelRow<Args>& select(const ExecutionContext& context, const Args& args) const {
    const std::string_view forced = context.kernel_override(op());
    for (const auto& row : rows_) {
      if (!forced.empty() && row.name != forced) continue;
      if (row.device != context.traits().kind) continue;
      if (row.supports == nullptr || row.supports(args, context.traits())) return row;
    }
    OCTAVO_CHECK(false, "op {}: no row {}supports these arguments on {}", op(),
                 forced.empty() ? "" : fmt::format("'{}' that ", forced), context.traits().name);
  }

  /// Scratch, then run; in a dry run the scratch is only counted.
  void dispatch(ExecutionContext& context, const Args& args) const {
    const KernelRow<Args>& row = select(context, args);
    device::Arena::Scope scope(context.arena());
    void* scratch = nullptr;
    if (row.scratch_bytes != nullptr) {
      const auto bytes = static_cast<std::int64_t>(row.scratch_bytes(context, args));
      if (bytes > 0) scratch = context.arena().take(DType::kI8, Shape{bytes}).data();
    }
    if (context.dry_run()) return;
    device::OpObserver* const observer = context.op_observer();
    if (observer != nullptr) observer->before_op(context, op(), row.name, device::AnyArgs(args));
    row.run(context, args, scratch);
    if (observer != nullptr) observer->after_op(context);
  }

 private:
  std::vector<KernelRow<Args>> rows_;
};

}  // namespace octavo::ops
