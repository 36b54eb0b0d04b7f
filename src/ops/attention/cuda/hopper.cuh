// What a kernel for sm_90a needs of PTX: barriers in shared memory, the copy engine, and the tensor cores' asynchronous
// products of a warpgroup (four warps, 64 rows).
#pragma once

#include <cuda.h>

#include <cstdint>

namespace octavo::ops::hopper {

// --- barriers: a phase ends when all arrivals and all announced bytes are there; a wait names the phase by its parity
// ---

__device__ __forceinline__ std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}
__device__ __forceinline__ void init_barrier(std::uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
/// After a thread's writes to shared memory, before the barrier behind which the tensor cores or the copy engine use
/// it.
__device__ __forceinline__ void publish_writes() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
/// After the inits, before other threads and the copy engine use them.
__device__ __forceinline__ void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  publish_writes();
}
__device__ __forceinline__ void arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void arrive_and_expect(std::uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ __forceinline__ void wait(std::uint32_t barrier, int parity) {
  std::uint32_t done = 0;
  while (done == 0) {
    asm volatile(
        "{\n.reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.b32 %0, 1, 0, p;\n}\n"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  }
}

// --- the copy engine ---

/// Starts a copy of the map's box at (x, y, z, w) to shared memory; its bytes arrive at the barrier. What lies outside
/// of the tensor is zero.
__device__ __forceinline__ void copy_box(std::uint32_t to, const CUtensorMap& map, std::uint32_t barrier, int x, int y,
                                         int z, int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], "
      "[%2];" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}

// --- products of a warpgroup ---

__device__ __forceinline__ void product_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void product_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Until at most kLeft of the committed products are under way; they end in order.
template <int kLeft>
__device__ __forceinline__ void product_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}
/// Keeps the compiler from moving reads and writes of accumulators across this point.
template <int N>
__device__ __forceinline__ void pin(std::uint32_t (&registers)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+r"(registers[i])::"memory");
}
/// The same for one of kPortions equal parts.
template <int kPortions, int N>
__device__ __forceinline__ void pin(std::uint32_t (&registers)[N], int portion) {
#pragma unroll
  for (int i = portion * (N / kPortions); i < (portion + 1) * (N / kPortions); ++i)
    asm volatile("" : "+r"(registers[i])::"memory");
}
template <int N>
__device__ __forceinline__ void pin(float (&registers)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}

/// How the copy engine wrote a tile whose rows have 64 or 128 bytes: 16-byte pieces permuted within 8 rows.
enum class Swizzle : std::uint64_t { k128 = 1, k64 = 2 };

/// A tile in shared memory as the tensor cores address it; groups of 8 rows follow one another. The low bits count
/// 16-byte units: adding to the descriptor moves along the tile. Where a product takes more of a transposed tile than a
/// row has (64 channels of 16 bits), what follows is a tile `next_bytes` further on.
template <Swizzle kSwizzle>
__device__ __forceinline__ std::uint64_t tile_descriptor(std::uint32_t address, std::uint32_t next_bytes = 16) {
  constexpr std::uint64_t kGroupBytes = kSwizzle == Swizzle::k128 ? 1024 : 512;
  return (address & 0x3FFFF) >> 4 | std::uint64_t{next_bytes >> 4} << 16 | (kGroupBytes >> 4) << 32 |
         static_cast<std::uint64_t>(kSwizzle) << 62;
}

}  // namespace octavo::ops::hopper
