#include "layers/weight_streamer.h"

#include <algorithm>

namespace octavo::layers {

Result<int> WeightStreamer::take(const TensorView& weight) {
  const std::size_t bytes = weight.byte_count();
  OCTAVO_ASSIGN_OR_RETURN(device::Buffer host, device_.allocate(bytes, device::MemoryKind::kPinnedHost));
  const auto stream = device_.create_stream();
  device_.copy_to_host(*stream, host.data(), weight.data(), bytes);
  stream->synchronize();
  slot_bytes_ = std::max(slot_bytes_, bytes);
  weights_.push_back(std::move(host));
  return static_cast<int>(weights_.size()) - 1;
}

Status WeightStreamer::finish() {
  if (weights_.empty()) return {};
  for (Slot& slot : slots_) {
    OCTAVO_ASSIGN_OR_RETURN(slot.memory, device_.allocate(slot_bytes_));
    slot.holds = -1;
  }
  return {};
}

void WeightStreamer::fetch(device::ExecutionContext& context, int number, std::size_t slot) {
  const device::Buffer& weight = weights_[static_cast<std::size_t>(number)];
  context.device().copy_to_device(*context.stream().side(), slots_[slot].memory.data(), weight.data(),
                                  weight.byte_count());
  slots_[slot].holds = number;
}

void* WeightStreamer::acquire(device::ExecutionContext& context, int number) {
  OCTAVO_CHECK(number >= 0 && number < static_cast<int>(weights_.size()) && slots_[0].memory.data() != nullptr,
               "weight {} of {}", number, weights_.size());
  if (context.dry_run()) return nullptr;
  device::Stream& stream = context.stream();
  stream.side();  // makes it
  const std::size_t other = 1 - in_use_;
  if (slots_[in_use_].holds != number) {
    if (slots_[other].holds != number) {
      stream.fork();  // what reads the slot is done before it is written
      fetch(context, number, other);
    }
    in_use_ = other;
  }
  stream.join();
  const int next = (number + 1) % static_cast<int>(weights_.size());
  if (next != number && slots_[1 - in_use_].holds != next) {
    stream.fork();
    fetch(context, next, 1 - in_use_);
  }
  return slots_[in_use_].memory.data();
}

}  // namespace octavo::layers
