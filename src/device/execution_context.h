// ExecutionContext: everything an op may use, passed explicitly. No globals, no thread-locals.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <typeinfo>

#include "device/arena.h"
#include "device/device.h"

namespace octavo::device {

/// Receives tensors by dotted path ("transformer.blocks.3.attn.out"). Parity tests, calibration and debug dumps
/// implement it. Views are of host memory and valid during the call only; on a GPU the stream is synchronised and the
/// tensor copied first.
class TapSink {
 public:
  virtual ~TapSink() = default;
  virtual void on_tensor(std::string_view path, const TensorView& value) = 0;
};

/// Which row each op must use: {"attention", "reference"} from `--kernel attention=reference`. An op that is not
/// named picks the first row that supports its arguments.
using KernelOverrides = std::map<std::string, std::string, std::less<>>;

class ExecutionContext;

/// An op's arguments, whatever their type: as<MatmulArgs>() is null for those of another op.
class AnyArgs {
 public:
  template <typename Args>
  explicit AnyArgs(const Args& args) : data_(&args), type_(typeid(Args)) {}
  template <typename Args>
  const Args* as() const {
    return type_ == typeid(Args) ? static_cast<const Args*>(data_) : nullptr;
  }

 private:
  const void* data_;
  const std::type_info& type_;
};

/// Sees every op that runs, before and after it is enqueued; ops that an op calls lie between. Profilers implement it.
/// What is observed runs op by op, on one stream and outside captured graphs.
class OpObserver {
 public:
  virtual ~OpObserver() = default;
  virtual void before_op(ExecutionContext& context, std::string_view op, std::string_view row, const AnyArgs& args) = 0;
  virtual void after_op(ExecutionContext& context) = 0;
};

class ExecutionContext {
 public:
  ExecutionContext(Device& device, Stream& stream, Arena& arena) : device_(device), stream_(stream), arena_(arena) {}

  Device& device() const { return device_; }
  Stream& stream() const { return stream_; }
  Arena& arena() const { return arena_; }
  const DeviceTraits& traits() const { return device_.traits(); }

  /// A context on the stream's side stream, with an arena of its own, for work that may run beside this one's between
  /// stream().fork() and stream().join(); null where there is none. Its kernels are chosen as here.
  ExecutionContext* side() const { return side_; }
  void set_side(ExecutionContext* side) { side_ = side; }

  /// Dry: ops check their arguments and count their scratch, and compute nothing. True while the arena measures.
  bool dry_run() const { return arena_.measuring(); }

  void set_tap(TapSink* sink) { tap_ = sink; }
  bool tapped() const { return tap_ != nullptr; }
  /// Free when no sink is set.
  void tap(std::string_view path, const TensorView& value) {
    if (tap_ != nullptr && !dry_run()) hand_to_sink(path, value);
  }

  void set_op_observer(OpObserver* observer) { observer_ = observer; }
  OpObserver* op_observer() const { return observer_; }

  void set_kernel_overrides(KernelOverrides overrides) { overrides_ = std::move(overrides); }
  /// "" when the op is free to choose.
  std::string_view kernel_override(std::string_view op) const {
    const auto found = overrides_.find(op);
    return found == overrides_.end() ? std::string_view() : std::string_view(found->second);
  }

 private:
  void hand_to_sink(std::string_view path, const TensorView& value);

  Device& device_;
  Stream& stream_;
  Arena& arena_;
  ExecutionContext* side_ = nullptr;
  TapSink* tap_ = nullptr;
  OpObserver* observer_ = nullptr;
  KernelOverrides overrides_;
};

}  // namespace octavo::device
