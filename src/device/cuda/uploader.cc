#include "device/cuda/uploader.h"

#include <algorithm>
#include <cstring>
#include <thread>

#include "device/cuda/cuda_device.h"

namespace octavo::device::cuda {

Uploader::~Uploader() {
  for (int i = 0; i < kSlots; ++i) {
    if (events_[static_cast<std::size_t>(i)] != nullptr) cudaEventDestroy(events_[static_cast<std::size_t>(i)]);
    if (slots_[static_cast<std::size_t>(i)] != nullptr) cudaFreeHost(slots_[static_cast<std::size_t>(i)]);
  }
}

void Uploader::start() {
  if (events_.back() != nullptr) return;  // all there; else what an earlier try could not get
  for (auto& slot : slots_) {
    if (slot == nullptr) check(cudaHostAlloc(&slot, kSlotBytes, cudaHostAllocDefault), "cudaHostAlloc");
  }
  for (auto& event : events_) {
    if (event != nullptr) continue;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  }
}

void Uploader::upload(cudaStream_t stream, void* destination, const void* source, std::size_t bytes) {
  start();
  // Page faults of a mapped file cost more than the copy itself: threads share them. More than 8 gain nothing.
  const int threads = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 8u));
  constexpr std::size_t kPiece = std::size_t{1} << 20;
  const auto* from = static_cast<const std::byte*>(source);
  auto* to = static_cast<std::byte*>(destination);
  for (std::size_t begin = 0; begin < bytes; begin += kSlotBytes) {
    const std::size_t count = std::min(kSlotBytes, bytes - begin);
    const auto slot = static_cast<std::size_t>(next_);
    next_ = (next_ + 1) % kSlots;
    check(cudaEventSynchronize(events_[slot]), "cudaEventSynchronize");
    auto* staged = static_cast<std::byte*>(slots_[slot]);
    const auto pieces = static_cast<long>((count + kPiece - 1) / kPiece);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (long piece = 0; piece < pieces; ++piece) {
      const std::size_t at = static_cast<std::size_t>(piece) * kPiece;
      std::memcpy(staged + at, from + begin + at, std::min(kPiece, count - at));
    }
    check(cudaMemcpyAsync(to + begin, staged, count, cudaMemcpyHostToDevice, stream), "cudaMemcpyAsync");
    check(cudaEventRecord(events_[slot], stream), "cudaEventRecord");
  }
}

}  // namespace octavo::device::cuda
