#include "weights/export/source_digest.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "base/sha256.h"

namespace octavo::weights {
namespace {

constexpr std::int64_t kPortionElements = std::int64_t{1} << 20;

/// What the threads share.
struct Work {
  const TensorSource& source;
  const DigestProgress& on_progress;
  std::vector<std::pair<std::size_t, std::size_t>> tensors;  // part, tensor; the largest first
  std::size_t total = 0;
  std::atomic<std::size_t> next{0};
  std::atomic<bool> stopped{false};
  std::mutex mutex;  // of what follows
  std::size_t done = 0;
  Status first_failure;
  std::vector<std::string> lines;

  void fail(Status status) {
    const std::lock_guard lock(mutex);
    if (first_failure.ok()) first_failure = std::move(status);
    stopped = true;
  }
  void report(std::size_t bytes) {
    const std::lock_guard lock(mutex);
    done += bytes;
    if (on_progress && !stopped && !on_progress(done, total)) {
      stopped = true;
      if (first_failure.ok()) first_failure = cancelled("interrupted");
    }
  }
};

void digest_tensor(Work& work, std::size_t part, std::size_t index, std::vector<std::byte>& buffer) {
  const SourceTensor& tensor = work.source.parts()[part].tensors[index];
  const std::size_t size = dtype_size(tensor.dtype);
  const std::int64_t count = tensor.shape.element_count();
  Sha256 digest;
  for (std::int64_t at = 0; at < count && !work.stopped; at += kPortionElements) {
    const std::int64_t portion = std::min(kPortionElements, count - at);
    buffer.resize(static_cast<std::size_t>(portion) * size);
    if (Status read = work.source.read(part, index, at, portion, tensor.dtype, buffer.data()); !read.ok()) {
      return work.fail(std::move(read));
    }
    digest.update(buffer);
    work.report(buffer.size());
  }
  work.source.release(part, index);
  std::string line = fmt::format("{}/{} {} {} {}\n", names_of(work.source.parts()[part].part).folder, tensor.name,
                                 dtype_name(tensor.dtype), tensor.shape.to_string(), digest.finish_hex());
  const std::lock_guard lock(work.mutex);
  work.lines.push_back(std::move(line));
}

}  // namespace

Result<std::string> digest_source(const TensorSource& source, const DigestProgress& on_progress) {
  Work work{.source = source, .on_progress = on_progress};
  const auto bytes = [&source](const std::pair<std::size_t, std::size_t>& one) {
    const SourceTensor& tensor = source.parts()[one.first].tensors[one.second];
    return static_cast<std::size_t>(tensor.shape.element_count()) * dtype_size(tensor.dtype);
  };
  for (std::size_t part = 0; part < source.parts().size(); ++part) {
    for (std::size_t i = 0; i < source.parts()[part].tensors.size(); ++i) {
      work.tensors.emplace_back(part, i);
      work.total += bytes(work.tensors.back());
    }
  }
  std::stable_sort(work.tensors.begin(), work.tensors.end(),
                   [&bytes](const auto& a, const auto& b) { return bytes(a) > bytes(b); });
  const auto run = [&work] {
    std::vector<std::byte> buffer;
    for (std::size_t i = work.next++; i < work.tensors.size() && !work.stopped; i = work.next++) {
      digest_tensor(work, work.tensors[i].first, work.tensors[i].second, buffer);
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < std::max(1u, std::thread::hardware_concurrency()); ++i) threads.emplace_back(run);
  run();
  for (std::thread& thread : threads) thread.join();
  OCTAVO_RETURN_IF_ERROR(work.first_failure);
  std::sort(work.lines.begin(), work.lines.end());
  Sha256 digest;
  for (const std::string& line : work.lines) digest.update(line);
  return digest.finish_hex();
}

}  // namespace octavo::weights
