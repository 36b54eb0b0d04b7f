#include "weights/synthesis/pooled_model.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>

#include "weights/synthesis/synthetic_source.h"

namespace octavo::weights {
namespace {

constexpr std::int64_t kAlignment = 128;                // elements: 256 bytes, as GPUs like their rows
constexpr std::int64_t kMostPlaces = 1 << 20;           // that tensors of one pool begin at
constexpr std::int64_t kPiece = std::int64_t{1} << 18;  // values that a thread draws at a time

/// Shared memory, so that letting go of pages (SafetensorsFile::release) forgets nothing.
Result<std::shared_ptr<std::byte>> map_pool(std::size_t bytes) {
  const auto failed = [bytes] {
    return resource_exhausted(
        "memory", fmt::format("{:.1f} GB for random weights could not be taken", static_cast<double>(bytes) / 1e9));
  };
  const int file = ::memfd_create("octavo-random-weights", MFD_CLOEXEC);
  if (file < 0) return failed();
  void* data = MAP_FAILED;
  if (::ftruncate(file, static_cast<off_t>(bytes)) == 0) {
    data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  }
  ::close(file);
  if (data == MAP_FAILED) return failed();
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(data), [bytes](std::byte* pool) { ::munmap(pool, bytes); });
}

struct TensorAt {
  std::size_t part = 0, tensor = 0;
};

/// Tensors of one spread; the largest tells how long the pool is and how its values are drawn.
struct Pool {
  TensorAt largest;
  std::int64_t elements = 0;  // of the largest
  std::int64_t places = 1;    // where tensors begin, kAlignment apart
  std::int64_t begin = 0;     // element of the whole mapping
  std::int64_t length() const { return (elements + places * kAlignment + kAlignment - 1) / kAlignment * kAlignment; }
};

}  // namespace

Result<std::vector<PooledPart>> make_pooled_model(const std::string& name, const ModelSizes& sizes,
                                                  std::uint64_t seed) {
  const SyntheticSource source(sizes, {.seed = seed, .outliers = 0, .dtype = DType::kBF16});
  const auto& parts = source.parts();
  std::map<SyntheticSource::Spread, Pool> pools;
  for (std::size_t part = 0; part < parts.size(); ++part) {
    for (std::size_t tensor = 0; tensor < parts[part].tensors.size(); ++tensor) {
      Pool& pool = pools[source.spread(part, tensor)];
      const std::int64_t elements = parts[part].tensors[tensor].shape.element_count();
      if (elements <= pool.elements) continue;
      pool.largest = {part, tensor};
      pool.elements = elements;
    }
  }
  std::int64_t total = 0;
  for (auto& [spread, pool] : pools) {
    // A position table is one, and not random: it must begin at its beginning.
    pool.places =
        spread.position_table ? 1 : std::clamp<std::int64_t>(pool.elements / kAlignment, 1, kMostPlaces / kAlignment);
    pool.begin = total;
    total += pool.length();
  }
  OCTAVO_ASSIGN_OR_RETURN(const auto memory, map_pool(static_cast<std::size_t>(total) * sizeof(std::uint16_t)));

  // Pieces of all pools, taken by whichever thread is free.
  struct Piece {
    const Pool* pool;
    bool position_table;
    std::int64_t begin, count;
  };
  std::vector<Piece> pieces;
  for (const auto& [spread, pool] : pools) {
    const std::int64_t length = spread.position_table ? pool.elements : pool.length();
    for (std::int64_t at = 0; at < length; at += kPiece) {
      pieces.push_back({&pool, spread.position_table, at, std::min(kPiece, length - at)});
    }
  }
  std::atomic<std::size_t> next{0};
  const auto draw = [&] {
    for (std::size_t i = next++; i < pieces.size(); i = next++) {
      const Piece& piece = pieces[i];
      std::byte* to = memory.get() + static_cast<std::size_t>(piece.pool->begin + piece.begin) * sizeof(std::uint16_t);
      // SyntheticSource draws at any place, also behind the end of the tensor that it draws for.
      const Status drawn =
          source.read(piece.pool->largest.part, piece.pool->largest.tensor, piece.begin, piece.count, DType::kBF16, to);
      OCTAVO_CHECK(drawn.ok(), "{}", drawn.to_string());
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < std::max(1u, std::thread::hardware_concurrency()); ++i) threads.emplace_back(draw);
  draw();
  for (std::thread& thread : threads) thread.join();

  std::vector<PooledPart> made;
  std::uint64_t count = 0;
  for (std::size_t part = 0; part < parts.size(); ++part) {
    std::map<std::string, TensorInfo, std::less<>> tensors;
    for (std::size_t tensor = 0; tensor < parts[part].tensors.size(); ++tensor) {
      const Pool& pool = pools.at(source.spread(part, tensor));
      const SourceTensor& one = parts[part].tensors[tensor];
      // A golden-ratio walk: neighbours are far from each other, whatever the number of places.
      const auto place =
          static_cast<std::int64_t>((++count * 0x9E3779B97F4A7C15ull >> 32) % static_cast<std::uint64_t>(pool.places));
      tensors[one.name] = {.dtype = "BF16",
                           .shape = one.shape,
                           .offset = static_cast<std::size_t>(pool.begin + place * kAlignment) * sizeof(std::uint16_t),
                           .byte_count = static_cast<std::size_t>(one.shape.element_count()) * sizeof(std::uint16_t)};
    }
    made.push_back({.part = parts[part].part,
                    .config = parts[part].config,
                    .file = SafetensorsFile::of_memory(
                        name + "/" + std::string(names_of(parts[part].part).folder), memory,
                        static_cast<std::size_t>(total) * sizeof(std::uint16_t), std::move(tensors),
                        {{std::string(kSynthesisedMetadata), "in memory; tensors share their numbers"}})});
  }
  return made;
}

}  // namespace octavo::weights
