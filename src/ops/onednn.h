// What the ops share of oneDNN: the engine, names of types, and primitives cached with their memory objects.
//
// oneDNN's own code allocates a few small maps at each execution (tests count them apart); ours allocates nothing
// once a primitive has been built.
#pragma once

#include <array>
#include <cstddef>
#include <dnnl.hpp>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "device/cpu/parallel_for.h"
#include "tensor/tensor.h"

namespace octavo::ops {

/// The CPU engine of the process: stateless, safe from any thread.
const dnnl::engine& onednn_engine();

/// Before a primitive is made or run on this thread: oneDNN gets the threads of `traits`, and at the first call of the
/// process no more than its instruction sets (OCTAVO_MAX_ISA). Costs two comparisons afterwards.
void prepare_onednn(const device::DeviceTraits& traits);

/// f32, f16 or bf16.
dnnl::memory::data_type onednn_type(DType dtype);

/// A primitive and the memory objects it runs on. Executions from several threads each take their own set.
class OnednnPrimitive {
 public:
  /// One argument: its index (DNNL_ARG_*) and layout.
  struct Argument {
    int index = 0;
    dnnl::memory::desc layout;
  };
  static constexpr std::size_t kMaxArguments = 8;

  /// `scratchpad` must be the descriptor's scratchpad_desc(), the attribute's mode scratchpad_mode::user: scratch
  /// comes from the arena.
  OnednnPrimitive(dnnl::primitive primitive, std::vector<Argument> arguments, const dnnl::memory::desc& scratchpad);

  std::size_t scratchpad_bytes() const { return scratchpad_bytes_; }
  /// `pointers` in the order of the arguments, then the scratchpad's; returns when done.
  void execute(std::span<void* const> pointers);

 private:
  struct Slot {
    dnnl::stream stream;
    std::vector<dnnl::memory> memories;
    std::array<dnnl_exec_arg_t, kMaxArguments + 1> arguments{};
  };
  std::unique_ptr<Slot> take_slot();
  void give_slot(std::unique_ptr<Slot> slot);

  dnnl::primitive primitive_;
  std::vector<Argument> arguments_;
  std::size_t scratchpad_bytes_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Slot>> free_slots_;
};

/// Primitives by shape. Found without allocating; built at first use. Bounded: when kMaxEntries shapes are held all are
/// dropped (users keep theirs alive), so that a server asked for every picture size does not grow for ever.
template <class Key>
class OnednnPrimitiveCache {
 public:
  static constexpr std::size_t kMaxEntries = 1024;

  template <class Build>
  std::shared_ptr<OnednnPrimitive> find_or_build(const Key& key, const Build& build) {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    if (found != entries_.end()) return found->second;
    if (entries_.size() >= kMaxEntries) entries_.clear();
    return entries_.emplace(key, build()).first->second;
  }

 private:
  std::mutex mutex_;
  std::map<Key, std::shared_ptr<OnednnPrimitive>> entries_;
};

}  // namespace octavo::ops
