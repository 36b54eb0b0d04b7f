// WeightStreamer: weights that wait in pinned host memory and come to a GPU for their product, one after another: two
// slots on the device, each filled by the stream's side stream while the product of the other is computed.
#pragma once

#include <array>
#include <vector>

#include "device/execution_context.h"

namespace octavo::layers {

/// Belongs to a model; used by one thread. Products are expected in the order in which their weights were taken:
/// another order is right, but waits for its copies.
class WeightStreamer {
 public:
  explicit WeightStreamer(device::Device& device) : device_(device) {}

  /// Copies a weight on the device to the host, and says under which number it is kept. kResourceExhausted when pinned
  /// memory is short.
  Result<int> take(const TensorView& weight);
  /// After the last take(), before the first acquire(): the slots. kResourceExhausted without device memory.
  Status finish();

  /// Where weight `number` is for what is enqueued on the context's stream until the next call. Null in a dry run.
  void* acquire(device::ExecutionContext& context, int number);

 private:
  struct Slot {
    device::Buffer memory;
    int holds = -1;
  };
  void fetch(device::ExecutionContext& context, int number, std::size_t slot);

  device::Device& device_;
  std::vector<device::Buffer> weights_;
  std::array<Slot, 2> slots_;
  std::size_t in_use_ = 0;      // the slot of the last acquire()
  std::size_t slot_bytes_ = 0;  // of the largest weight
};

}  // namespace octavo::layers
