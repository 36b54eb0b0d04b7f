// softmax(q k^T) v for heads of 64 on sm_90a, all softmax arithmetic in packed f16.
//
// Mapping. A block takes 192 queries of a head: three warpgroups of 64, fed by one thread of a fourth that only starts
// copies; blocks walk over (head, query tile). Keys and values pass through a ring of four tiles of 128 tokens. Per
// tile a warpgroup has S = q k^T (f16 accumulators: two scores a register, half the registers of f32), the exponentials
// in place, and O += P v with those very registers as operand: the accumulator layout of an f16 product is the operand
// layout of the next, v is read as it lies. The product q k^T of the next tile runs while the exponentials of this one
// are taken, and each half of P goes to the tensor cores as soon as it is there.
//
// Softmax. Exponents of two, relative to a number of the row that follows its largest score lazily: only when a score
// passes it by 2^6 are O and the sum scaled down (a few times a row at most; P stays below 2^7, far inside f16). An
// instruction does two elements: subtract, maximum. A quarter of the exponentials is a cubic polynomial on the f16
// units, since those of the special function units are a bottleneck beside the tensor cores: relative error 7.5e-5,
// below f16's rounding. P is 2^8 times what it is relative to: f16 has room above, and below 2^-22 of a row's largest
// weight the polynomial's columns are wrong (by less than 5e-7 of that weight). The sums of P are eight columns of ones
// beside v, so the tensor cores add them in f32; that is an eighth more of their work on v and 28 instructions a tile
// less of the others.
//
// Cost. b2 h38 L4429: 382 GFLOP, 172 MB of q, k, v and out; 160 registers a thread, 208 KB of shared memory. On an H200
// at 700 W: 0.58 to 0.64 ms by itself (593 to 658 TFLOP/s, `octavo bench --suite ops`), 0.65 between the products of a
// step; with sums on the f16 units it was 0.68 to 0.69 and 0.69. Beside 0.650 in one run: 0.635 into codes, 0.616 with
// e4m3 q and k. Taking an eighth or half of the exponentials for the polynomial is not faster (0.63 to 0.64).
//
// Numbers: f16 q and k carry 3 bits more than bf16, scores are rounded to 11 bits, P to 11 bits; sums in f32.
// Against f32 the error is below that of bf16 operands (51.6 dB SQNR against 47.9 dB on normed q and k with weights of
// 1; e4m3 q and k: 26.8 dB).
//
// A query's result depends on its own row of q and its head's k and v alone, in one order of sums: the same bits in
// every run, whatever else is in the batch.
#include <cudaTypedefs.h>

#include <algorithm>
#include <numbers>

#include "device/cuda/cuda_launch.h"
#include "ops/attention/cuda/attention_hopper.h"
#include "ops/attention/cuda/hopper.cuh"
#include "ops/cuda/elements.cuh"

namespace octavo::ops {
namespace {

constexpr int kWidth = 64;
constexpr int kGroups = 3;      // warpgroups that compute
constexpr int kGroupRows = 64;  // queries of one
constexpr int kRows = kGroups * kGroupRows;
constexpr int kKeys = 128;  // of a tile
constexpr int kStages = 4;  // tiles of keys and values in flight
constexpr int kThreads = (kGroups + 1) * 128;
constexpr int kProducerRegisters = 32, kConsumerRegisters = 160;  // together the multiprocessor's 64 K
constexpr int kScores = kKeys / 4;                                // registers of a thread, two scores each
constexpr int kPortions = 2;                                      // of P, multiplied one after the other
constexpr int kSums = kWidth / 2;                                 // where sums of P begin in a thread's accumulators
constexpr int kOuts = kSums + 4;
constexpr int kOnesBytes = 16 * kWidth * 2;  // 16 keys of a tile of values

struct AttentionParams {
  CUtensorMap q, k, v;
  std::uint8_t* out;
  const float* quant_scale;  // out holds e4m3 codes; null: bf16
  float value_factor;
  std::int64_t out_batch_stride;  // bytes, as is the next
  std::int64_t out_token_stride;
  int queries;
  int heads;
  int query_tiles;  // of a head
  int tiles;
  int key_tiles;
  int last_keys;                  // in the last tile of keys
  std::uint32_t exponent_factor;  // f16, twice: what makes scores exponents of two
};

/// Where things lie in shared memory, in bytes from a 1024-byte border.
template <bool kCodes>
struct Layout {
  static constexpr int kElement = kCodes ? 1 : 2;
  static constexpr int kQueryBytes = kGroupRows * kWidth * kElement;  // of a warpgroup
  static constexpr int kKeyBytes = kKeys * kWidth * kElement;
  static constexpr int kValueBytes = kKeys * kWidth * 2;
  static constexpr int kOutBytes = kGroupRows * kWidth * 2;
  static constexpr int kKeyOffset = 2 * kGroups * kQueryBytes;  // queries of two tiles
  static constexpr int kValueOffset = kKeyOffset + kStages * kKeyBytes;
  static constexpr int kOutOffset = kValueOffset + kStages * kValueBytes;
  static constexpr int kOnesOffset = kOutOffset + kGroups * kOutBytes;
  static constexpr int kBarrierOffset = kOnesOffset + kOnesBytes;
  static constexpr int kBarriers = 2 + 2 + 3 * kStages;
  static constexpr int kBytes = kBarrierOffset + kBarriers * 8 + 1024;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

using namespace hopper;

// --- products ---

#define OCTAVO_SCORE_PRODUCT(types, access, add, tail)                                                                 \
  asm volatile("wgmma.mma_async.sync.aligned." types                                                                   \
               " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                              \
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "                     \
               "%32, %33, " add ", 1, 1" tail ";"                                                                      \
               : access(s[0]), access(s[1]), access(s[2]), access(s[3]), access(s[4]), access(s[5]), access(s[6]),     \
                 access(s[7]), access(s[8]), access(s[9]), access(s[10]), access(s[11]), access(s[12]), access(s[13]), \
                 access(s[14]), access(s[15]), access(s[16]), access(s[17]), access(s[18]), access(s[19]),             \
                 access(s[20]), access(s[21]), access(s[22]), access(s[23]), access(s[24]), access(s[25]),             \
                 access(s[26]), access(s[27]), access(s[28]), access(s[29]), access(s[30]), access(s[31])              \
               : "l"(q), "l"(k))

/// 32 bytes of the head's width: 16 channels in f16, 32 in e4m3. The first ones overwrite s.
template <bool kCodes, bool kFirst>
__device__ __forceinline__ void score_product(std::uint32_t (&s)[kScores], std::uint64_t q, std::uint64_t k) {
  if constexpr (kCodes && kFirst) {
    OCTAVO_SCORE_PRODUCT("m64n128k32.f16.e4m3.e4m3", "=r", "0", "");
  } else if constexpr (kCodes) {
    OCTAVO_SCORE_PRODUCT("m64n128k32.f16.e4m3.e4m3", "+r", "1", "");
  } else if constexpr (kFirst) {
    OCTAVO_SCORE_PRODUCT("m64n128k16.f16.f16.f16", "=r", "0", ", 0, 0");
  } else {
    OCTAVO_SCORE_PRODUCT("m64n128k16.f16.f16.f16", "+r", "1", ", 0, 0");
  }
}
#undef OCTAVO_SCORE_PRODUCT

/// s = q k^T, 64 by 128; complete after a commit and a wait.
template <bool kCodes>
__device__ __forceinline__ void start_scores(std::uint32_t (&s)[kScores], std::uint32_t queries, std::uint32_t keys) {
  constexpr Swizzle kSwizzle = kCodes ? Swizzle::k64 : Swizzle::k128;
  constexpr int kSteps = kCodes ? 2 : 4;
  const std::uint64_t q = tile_descriptor<kSwizzle>(queries), k = tile_descriptor<kSwizzle>(keys);
  product_fence();
  score_product<kCodes, true>(s, q, k);
#pragma unroll
  for (int step = 1; step < kSteps; ++step) score_product<kCodes, false>(s, q + 2 * step, k + 2 * step);
  product_commit();
}

/// out += p v for 16 keys: p in registers, v as it lies (keys by channels). Channels 64 to 71 are ones, so that the
/// sums of P come out of the tensor cores, in f32.
__device__ __forceinline__ void value_product(float (&out)[kOuts], const std::uint32_t* p, std::uint64_t v) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n72k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35}, "
      "{%36, %37, %38, %39}, %40, 1, 1, 1, 1;"
      : "+f"(out[0]), "+f"(out[1]), "+f"(out[2]), "+f"(out[3]), "+f"(out[4]), "+f"(out[5]), "+f"(out[6]), "+f"(out[7]),
        "+f"(out[8]), "+f"(out[9]), "+f"(out[10]), "+f"(out[11]), "+f"(out[12]), "+f"(out[13]), "+f"(out[14]),
        "+f"(out[15]), "+f"(out[16]), "+f"(out[17]), "+f"(out[18]), "+f"(out[19]), "+f"(out[20]), "+f"(out[21]),
        "+f"(out[22]), "+f"(out[23]), "+f"(out[24]), "+f"(out[25]), "+f"(out[26]), "+f"(out[27]), "+f"(out[28]),
        "+f"(out[29]), "+f"(out[30]), "+f"(out[31]), "+f"(out[32]), "+f"(out[33]), "+f"(out[34]), "+f"(out[35])
      : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(v));
}

/// One of kPortions of out += p v.
__device__ __forceinline__ void start_values(float (&out)[kOuts], std::uint32_t (&p)[kScores], std::uint32_t values,
                                             std::uint32_t ones, int portion) {
  constexpr int kSteps = kKeys / 16 / kPortions;
  constexpr std::uint64_t kStep =
      16 * kWidth * 2 / 16;  // to the next 16 keys, from where the ones are that much nearer
  const std::uint64_t v = tile_descriptor<Swizzle::k128>(values, ones - values);
  pin<kPortions>(p, portion);
  product_fence();
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    const int step = portion * kSteps + i;
    value_product(out, p + 4 * step, v + step * (kStep - (kStep << 16)));
  }
  product_commit();
}

// --- packed f16: two neighbouring columns of a row in a register ---

__device__ __forceinline__ std::uint32_t bits_of(__half2 x) { return *reinterpret_cast<std::uint32_t*>(&x); }
__device__ __forceinline__ __half2 halves_of(std::uint32_t x) { return *reinterpret_cast<__half2*>(&x); }
__device__ __forceinline__ std::uint32_t twice(float x) { return bits_of(__float2half2_rn(x)); }
__device__ __forceinline__ std::uint32_t larger(std::uint32_t a, std::uint32_t b) {
  return bits_of(__hmax2(halves_of(a), halves_of(b)));
}
__device__ __forceinline__ std::uint32_t sum(std::uint32_t a, std::uint32_t b) {
  return bits_of(__hadd2(halves_of(a), halves_of(b)));
}
__device__ __forceinline__ std::uint32_t product_sum(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  return bits_of(__hfma2(halves_of(a), halves_of(b), halves_of(c)));
}
__device__ __forceinline__ std::uint32_t negative(std::uint32_t x) { return x ^ 0x80008000u; }
__device__ __forceinline__ std::uint32_t low_twice(std::uint32_t x) { return __byte_perm(x, x, 0x1010); }
__device__ __forceinline__ std::uint32_t high_twice(std::uint32_t x) { return __byte_perm(x, x, 0x3232); }

__device__ __forceinline__ std::uint32_t exp2_by_unit(std::uint32_t x) {
  std::uint32_t y;
  asm("ex2.approx.f16x2 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}
/// 2^(x + 0.5) for -14.5 < x <= 15 without the special function units; below that wrong by up to 6e-5, at last 3e-7.
__device__ __forceinline__ std::uint32_t exp2_by_polynomial(std::uint32_t x) {
  constexpr std::uint32_t kShift = 0x66206620u;   // 1568: the last bit of a sum with it weighs 1
  constexpr std::uint32_t kLowest = 0xCBBFCBBFu;  // -15.49: the least whose exponent does not wrap around
  x = larger(x, kLowest);
  const std::uint32_t shifted = sum(x, kShift);  // its low bits are x rounded to an integer
  const std::uint32_t rest = sum(x, negative(sum(shifted, negative(kShift))));  // within 0.5
  // 2^(rest + 0.5), the best cubic for the relative error on [-0.5, 0.5]: 7.5e-5.
  std::uint32_t y = product_sum(rest, twice(0.07802449f), twice(0.34310394f));
  y = product_sum(y, rest, twice(0.98041909f));
  y = product_sum(y, rest, twice(1.41411184f));
  // The integer goes to the exponents of both halves by one shift; what else it moves there is a constant.
  constexpr std::uint32_t kConstant = 0u - 0x6620u * 1024u * 65537u;
  return (shifted << 10) + y + kConstant;
}

// --- softmax ---

/// Of the two rows of a thread, g and g + 8 of its warp's 16: even registers of s belong to the first.
struct Softmax {
  static constexpr float kSlack = 6.0f;
  static constexpr float kLift = 8.0f;  // P reaches 2^14, and rounded scores may add 2^0.5: f16 ends at 2^16
  std::uint32_t top;                    // {first, second} row: what exponents are relative to, but for the lift
  std::uint32_t factor;

  __device__ explicit Softmax(std::uint32_t exponent_factor) : top(twice(-60000.0f)), factor(exponent_factor) {}

  /// The largest new exponents of both rows.
  __device__ __forceinline__ std::uint32_t largest_of(const std::uint32_t (&s)[kScores]) const {
    std::uint32_t a = s[0], b = s[1], c = s[2], d = s[3];
#pragma unroll
    for (int i = 4; i < kScores; i += 4) {
      a = larger(a, s[i]);
      b = larger(b, s[i + 1]);
      c = larger(c, s[i + 2]);
      d = larger(d, s[i + 3]);
    }
    a = larger(a, c);
    b = larger(b, d);
    std::uint32_t largest = larger(__byte_perm(a, b, 0x5410), __byte_perm(a, b, 0x7632));
    largest = larger(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, 1));
    largest = larger(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, 2));
    return bits_of(__hmul2(halves_of(largest), halves_of(factor)));
  }

  /// Where they pass the limit: follows them, and scales what was summed so far.
  __device__ __forceinline__ void follow(std::uint32_t largest, float (&out)[kOuts]) {
    const std::uint32_t limit = sum(top, twice(kSlack));
    const bool passed = __hgt2_mask(halves_of(largest), halves_of(limit)) != 0;
    if (__any_sync(0xFFFFFFFFu, passed)) {
      const float2 seen = __half22float2(halves_of(largest)), old = __half22float2(halves_of(top)),
                   bound = __half22float2(halves_of(limit));
      const float first = seen.x > bound.x ? ceilf(seen.x) : old.x, second = seen.y > bound.y ? ceilf(seen.y) : old.y;
      const float first_scale = exp2f(old.x - first), second_scale = exp2f(old.y - second);
      top = bits_of(__floats2half2_rn(first, second));
#pragma unroll
      for (int i = 0; i < kOuts; i += 4) {
        out[i] *= first_scale;
        out[i + 1] *= first_scale;
        out[i + 2] *= second_scale;
        out[i + 3] *= second_scale;
      }
    }
  }

  /// s becomes P; done(portion) after each portion of it.
  template <class Done>
  __device__ __forceinline__ void weigh(std::uint32_t (&s)[kScores], Done&& done) {
    const std::uint32_t offsets[2] = {sum(negative(low_twice(top)), twice(kLift)),
                                      sum(negative(high_twice(top)), twice(kLift))};
    const std::uint32_t half_less[2] = {sum(offsets[0], twice(-0.5f)), sum(offsets[1], twice(-0.5f))};
#pragma unroll
    for (int portion = 0; portion < kPortions; ++portion) {
#pragma unroll
      for (int i = portion * (kScores / kPortions); i < (portion + 1) * (kScores / kPortions); ++i) {
        // Which columns take the polynomial depends on their place in the tile of keys alone.
        s[i] = i / 2 % 4 == 0 ? exp2_by_polynomial(product_sum(s[i], factor, half_less[i % 2]))
                              : exp2_by_unit(product_sum(s[i], factor, offsets[i % 2]));
      }
      done(portion);
    }
  }
};

/// Keys that do not exist get no weight: the copy engine wrote zeros there.
__device__ __forceinline__ void mask_scores(std::uint32_t (&s)[kScores], int keys) {
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int i = 0; i < kScores; ++i) {
    const int at = i / 2 * 8 + column;
    const std::uint32_t kept = at + 1 < keys ? 0xFFFFFFFFu : at < keys ? 0xFFFFu : 0u;
    s[i] = (s[i] & kept) | (0xFC00FC00u & ~kept);  // -infinity
  }
}

/// The four warps of a warpgroup that computes.
__device__ __forceinline__ void group_barrier(int group) {
  asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory");
}

/// A place in the ring: which buffer, and the parity of its barriers' phase.
template <int kCount>
struct Place {
  int index = 0, parity = 0;
  __device__ __forceinline__ Place next() const {
    return index + 1 == kCount ? Place{0, parity ^ 1} : Place{index + 1, parity};
  }
};

struct Barriers {
  std::uint32_t queries_full, queries_empty, keys_full, values_full, tile_empty;
  __device__ explicit Barriers(std::uint32_t base)
      : queries_full(base),
        queries_empty(base + 16),
        keys_full(base + 32),
        values_full(keys_full + 8 * kStages),
        tile_empty(values_full + 8 * kStages) {}
};

template <bool kCodes>
__device__ __forceinline__ void produce(const AttentionParams& p, std::uint32_t base, const Barriers& barriers) {
  using L = Layout<kCodes>;
  Place<2> queries;
  Place<kStages> ring;
  for (int tile = blockIdx.x; tile < p.tiles; tile += gridDim.x) {
    const int of_head = tile / p.query_tiles, row = (tile - of_head * p.query_tiles) * kRows;
    const int b = of_head / p.heads, h = of_head - b * p.heads;
    wait(barriers.queries_empty + 8 * queries.index, queries.parity ^ 1);
    arrive_and_expect(barriers.queries_full + 8 * queries.index, kGroups * L::kQueryBytes);
    for (int group = 0; group < kGroups; ++group) {
      copy_box(base + (queries.index * kGroups + group) * L::kQueryBytes, p.q,
               barriers.queries_full + 8 * queries.index, 0, row + group * kGroupRows, h, b);
    }
    queries = queries.next();
    for (int j = 0; j < p.key_tiles; ++j) {
      wait(barriers.tile_empty + 8 * ring.index, ring.parity ^ 1);
      arrive_and_expect(barriers.keys_full + 8 * ring.index, L::kKeyBytes);
      copy_box(base + L::kKeyOffset + ring.index * L::kKeyBytes, p.k, barriers.keys_full + 8 * ring.index, 0, j * kKeys,
               h, b);
      arrive_and_expect(barriers.values_full + 8 * ring.index, L::kValueBytes);
      copy_box(base + L::kValueOffset + ring.index * L::kValueBytes, p.v, barriers.values_full + 8 * ring.index, 0,
               j * kKeys, h, b);
      ring = ring.next();
    }
  }
}

// --- what a warp's 16 queries come to, from tokens `token` on ---
//
// Through shared memory, pieces permuted so that no bank is hit twice, to whole rows of the head's channels.

__device__ __forceinline__ void store_values(const float (&out)[kOuts], float first, float second,
                                             std::uint32_t staging, std::uint8_t* to, std::int64_t token_stride,
                                             int token, int tokens) {
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, c = lane % 4;
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const __nv_bfloat162 upper = __floats2bfloat162_rn(out[4 * i] * first, out[4 * i + 1] * first);
    const __nv_bfloat162 lower = __floats2bfloat162_rn(out[4 * i + 2] * second, out[4 * i + 3] * second);
    const std::uint32_t at = staging + g * (kWidth * 2) + (i ^ g) * 16 + c * 4;
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(*reinterpret_cast<const std::uint32_t*>(&upper)) : "memory");
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(at + 8 * kWidth * 2),
                 "r"(*reinterpret_cast<const std::uint32_t*>(&lower))
                 : "memory");
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int r = i * 4 + lane / 8, piece = lane % 8;
    uint4 x;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "r"(staging + r * (kWidth * 2) + (piece ^ (r & 7)) * 16)
                 : "memory");
    if (token + r < tokens) *reinterpret_cast<uint4*>(to + (token + r) * token_stride + piece * 16) = x;
  }
}

__device__ __forceinline__ void store_codes(const float (&out)[kOuts], float first, float second, std::uint32_t staging,
                                            std::uint8_t* to, std::int64_t token_stride, int token, int tokens) {
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, c = lane % 4;
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const std::uint32_t at = staging + g * kWidth + (i ^ g) * 8 + c * 2;
    const std::uint32_t upper = cuda::encode_pair(DType::kE4M3, out[4 * i] * first, out[4 * i + 1] * first);
    const std::uint32_t lower = cuda::encode_pair(DType::kE4M3, out[4 * i + 2] * second, out[4 * i + 3] * second);
    asm volatile("st.shared.b16 [%0], %1;" ::"r"(at), "h"(static_cast<std::uint16_t>(upper)) : "memory");
    asm volatile("st.shared.b16 [%0], %1;" ::"r"(at + 8 * kWidth), "h"(static_cast<std::uint16_t>(lower)) : "memory");
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int r = i * 4 + lane / 8, piece = lane % 8;
    uint2 x;
    asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];"
                 : "=r"(x.x), "=r"(x.y)
                 : "r"(staging + r * kWidth + (piece ^ (r & 7)) * 8)
                 : "memory");
    if (token + r < tokens) *reinterpret_cast<uint2*>(to + (token + r) * token_stride + piece * 8) = x;
  }
}

/// A warpgroup's part of the block's tiles.
template <bool kCodes, bool kWritesCodes>
__device__ __forceinline__ void consume(const AttentionParams& p, std::uint32_t base, const Barriers& barriers,
                                        int group) {
  using L = Layout<kCodes>;
  const int warp = static_cast<int>(threadIdx.x) / 32 % 4;
  const bool leader = threadIdx.x % 128 == 0;
  const std::uint32_t staging = base + L::kOutOffset + group * L::kOutBytes + warp * (16 * kWidth * 2);
  Place<2> queries;
  Place<kStages> ring;
  for (int tile = blockIdx.x; tile < p.tiles; tile += gridDim.x) {
    const int of_head = tile / p.query_tiles;
    const int row = (tile - of_head * p.query_tiles) * kRows + group * kGroupRows;
    wait(barriers.queries_full + 8 * queries.index, queries.parity);
    if (row >= p.queries) {
      // Nothing to do, but the others' buffers go round. The warps stay together: one that lagged behind the leader by
      // two turns of the ring would wait for a parity that is over.
      for (int j = 0; j < p.key_tiles; ++j, ring = ring.next()) {
        wait(barriers.keys_full + 8 * ring.index, ring.parity);
        wait(barriers.values_full + 8 * ring.index, ring.parity);
        group_barrier(group);
        if (leader) arrive(barriers.tile_empty + 8 * ring.index);
      }
      if (leader) arrive(barriers.queries_empty + 8 * queries.index);
      queries = queries.next();
      continue;
    }

    const std::uint32_t own_queries = base + (queries.index * kGroups + group) * L::kQueryBytes;
    const auto start_scores_of = [&](std::uint32_t(&s)[kScores], const Place<kStages>& at) {
      wait(barriers.keys_full + 8 * at.index, at.parity);
      start_scores<kCodes>(s, own_queries, base + L::kKeyOffset + at.index * L::kKeyBytes);
    };
    float out[kOuts] = {};
    Softmax softmax(p.exponent_factor);
    const auto weigh_and_start_values = [&](std::uint32_t(&s)[kScores]) {
      wait(barriers.values_full + 8 * ring.index, ring.parity);
      softmax.weigh(s, [&](int portion) {
        start_values(out, s, base + L::kValueOffset + ring.index * L::kValueBytes, base + L::kOnesOffset, portion);
      });
    };
    // P v of a tile stays under way while the largest of the next scores is found.
    int unfinished = -1;  // the ring's buffer that it reads
    const auto finish_values = [&] {
      product_wait<0>();
      pin(out);
      if (leader && unfinished >= 0) arrive(barriers.tile_empty + 8 * unfinished);
    };
    const auto middle_tile = [&](std::uint32_t(&scores)[kScores], std::uint32_t(&next)[kScores]) {
      const std::uint32_t largest = softmax.largest_of(scores);
      finish_values();
      softmax.follow(largest, out);
      pin(out);
      start_scores_of(next, ring.next());
      weigh_and_start_values(scores);
      product_wait<kPortions>();  // the scores
      pin(next);
      unfinished = ring.index;
      ring = ring.next();
    };
    const auto last_tile = [&](std::uint32_t(&scores)[kScores]) {
      finish_values();
      if (p.last_keys < kKeys) mask_scores(scores, p.last_keys);
      softmax.follow(softmax.largest_of(scores), out);
      pin(out);
      weigh_and_start_values(scores);
      unfinished = ring.index;
      finish_values();
      ring = ring.next();
    };
    std::uint32_t even[kScores], odd[kScores];
    start_scores_of(even, ring);
    product_wait<0>();
    pin(even);
    int left = p.key_tiles;
    for (; left > 2; left -= 2) {
      middle_tile(even, odd);
      middle_tile(odd, even);
    }
    if (left == 2) {
      middle_tile(even, odd);
      last_tile(odd);
    } else {
      last_tile(even);
    }

    // Every warp of the group has used its queries.
    group_barrier(group);
    if (leader) arrive(barriers.queries_empty + 8 * queries.index);
    queries = queries.next();

    float factor = p.value_factor;
    if constexpr (kWritesCodes) factor *= *p.quant_scale;
    const float first = factor / out[kSums], second = factor / out[kSums + 2];
    const int b = of_head / p.heads, h = of_head - b * p.heads;
    std::uint8_t* to = p.out + b * p.out_batch_stride + h * (kWidth * (kWritesCodes ? 1 : 2));
    if constexpr (kWritesCodes) {
      store_codes(out, first, second, staging, to, p.out_token_stride, row + warp * 16, p.queries);
    } else {
      store_values(out, first, second, staging, to, p.out_token_stride, row + warp * 16, p.queries);
    }
  }
}

#endif  // sm_90a

template <bool kCodes, bool kWritesCodes>
__global__ __launch_bounds__(kThreads, 1) void attention_kernel(const __grid_constant__ AttentionParams p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ std::uint8_t memory[];
  const std::uint32_t base = (shared_address(memory) + 1023) & ~1023u;
  const Barriers barriers(base + Layout<kCodes>::kBarrierOffset);
  static_assert(kOnesBytes == 4 * kThreads);
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(base + Layout<kCodes>::kOnesOffset + 4 * threadIdx.x), "r"(0x3C003C00u)
               : "memory");
  publish_writes();
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; ++i) {
      init_barrier(barriers.queries_full + 8 * i, 1);
      init_barrier(barriers.queries_empty + 8 * i, kGroups);
    }
    for (int i = 0; i < kStages; ++i) {
      init_barrier(barriers.keys_full + 8 * i, 1);
      init_barrier(barriers.values_full + 8 * i, 1);
      init_barrier(barriers.tile_empty + 8 * i, kGroups);
    }
    publish_barriers();
  }
  __syncthreads();
  // The same for a warp's lanes, and the compiler knows: descriptors stay in uniform registers.
  const int group = __shfl_sync(0xFFFFFFFFu, static_cast<int>(threadIdx.x) / 128, 0);
  if (group == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kProducerRegisters));
    if (threadIdx.x == 0) produce<kCodes>(p, base, barriers);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
    consume<kCodes, kWritesCodes>(p, base, barriers, group - 1);
  }
#else
  __trap();  // never to be chosen: attention_hopper_supports()
#endif
}

// --- host ---

PFN_cuTensorMapEncodeTiled_v12000 tensor_map_encoder() {
  static const auto encoder = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    device::cuda::check(
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
        "cudaGetDriverEntryPointByVersion");
    OCTAVO_CHECK(found == cudaDriverEntryPointSuccess, "the driver has no cuTensorMapEncodeTiled");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
  }();
  return encoder;
}

/// [B, H, tokens, 64] in boxes of `rows` tokens, written to shared memory as the tensor cores read it.
CUtensorMap tensor_map(const TensorView& view, int rows) {
  const bool codes = view.dtype() == DType::kE4M3;
  const auto bytes = static_cast<cuuint64_t>(dtype_size(view.dtype()));
  const auto stride = [&](int axis) {
    // An axis of one element may have any stride, but the copy engine wants a lawful one.
    return view.dim(axis) == 1 ? kWidth * bytes : static_cast<cuuint64_t>(view.stride(axis)) * bytes;
  };
  const cuuint64_t sizes[4] = {kWidth, static_cast<cuuint64_t>(view.dim(2)), static_cast<cuuint64_t>(view.dim(1)),
                               static_cast<cuuint64_t>(view.dim(0))};
  const cuuint64_t strides[3] = {stride(2), stride(1), stride(0)};
  const cuuint32_t box[4] = {kWidth, static_cast<cuuint32_t>(rows), 1, 1};
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  CUtensorMap map;
  const CUresult result = tensor_map_encoder()(
      &map, codes ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4, view.data(), sizes, strides,
      box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, codes ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  OCTAVO_CHECK(result == CUDA_SUCCESS, "cuTensorMapEncodeTiled: error {} for {}", static_cast<int>(result),
               view.shape().to_string());
  return map;
}

template <bool kCodes, bool kWritesCodes>
void launch(ExecutionContext& context, const AttentionParams& params) {
  constexpr int kBytes = Layout<kCodes>::kBytes;
  static const bool prepared = [] {
    device::cuda::check(cudaFuncSetAttribute(attention_kernel<kCodes, kWritesCodes>,
                                             cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
                        "cudaFuncSetAttribute");
    return true;
  }();
  static_cast<void>(prepared);
  const int blocks = std::min(device::cuda::multiprocessors_of(context), params.tiles);
  attention_kernel<kCodes, kWritesCodes><<<blocks, kThreads, kBytes, device::cuda::launch_stream(context)>>>(params);
  device::cuda::check_launch("attention_hopper");
}

float exponent_factor(const AttentionArgs& args) { return args.score_factor * std::numbers::log2e_v<float>; }

}  // namespace

bool attention_hopper_supports(const AttentionArgs& args, const DeviceTraits& traits) {
#if !defined(OCTAVO_HAVE_SM90A)
  return false;  // compiled for other GPUs alone
#endif
  const auto copies = [](const TensorView& view) {
    const auto size = static_cast<std::int64_t>(dtype_size(view.dtype()));
    for (int axis = 0; axis < 3; ++axis) {
      if (view.dim(axis) > 1 && view.stride(axis) * size % 16 != 0) return false;
    }
    return view.stride(3) == 1 && reinterpret_cast<std::uintptr_t>(view.data()) % 16 == 0;
  };
  const std::int64_t tiles = args.q.dim(0) * args.q.dim(1) * ((args.q.dim(2) + kRows - 1) / kRows);
  const float factor = exponent_factor(args);
  return traits.compute_capability == 90 && args.q.dim(3) == kWidth && !args.bias.defined() && !args.causal &&
         (args.q.dtype() == DType::kF16 || args.q.dtype() == DType::kE4M3) && args.v.dtype() == DType::kF16 &&
         (args.out.dtype() == DType::kBF16 || args.out.dtype() == DType::kE4M3) && copies(args.q) && copies(args.k) &&
         copies(args.v) && args.out.stride(2) == 1 && args.out.stride(1) % 8 == 0 && args.out.stride(0) % 8 == 0 &&
         reinterpret_cast<std::uintptr_t>(args.out.data()) % 16 == 0 && tiles < (std::int64_t{1} << 30) &&
         factor > 1e-4f && factor < 1e4f;  // an f16 with all its bits
}

void attention_hopper(ExecutionContext& context, const AttentionArgs& args, void*) {
  AttentionParams params;
  params.q = tensor_map(args.q, kGroupRows);
  params.k = tensor_map(args.k, kKeys);
  params.v = tensor_map(args.v, kKeys);
  const auto out_size = static_cast<std::int64_t>(dtype_size(args.out.dtype()));
  params.out = static_cast<std::uint8_t*>(args.out.data());
  params.quant_scale = args.out_quant_scale.defined() ? args.out_quant_scale.f32() : nullptr;
  params.value_factor = args.value_factor;
  params.out_batch_stride = args.out.stride(0) * out_size;
  params.out_token_stride = args.out.stride(1) * out_size;
  params.queries = static_cast<int>(args.q.dim(2));
  params.heads = static_cast<int>(args.q.dim(1));
  params.query_tiles = (params.queries + kRows - 1) / kRows;
  params.tiles = static_cast<int>(args.q.dim(0)) * params.heads * params.query_tiles;
  const int keys = static_cast<int>(args.k.dim(2));
  params.key_tiles = (keys + kKeys - 1) / kKeys;
  params.last_keys = keys - (params.key_tiles - 1) * kKeys;
  const std::uint32_t factor = __half_as_ushort(__float2half_rn(exponent_factor(args)));
  params.exponent_factor = factor | factor << 16;
  const bool codes = args.q.dtype() == DType::kE4M3, writes_codes = args.out.dtype() == DType::kE4M3;
  const auto run = codes ? (writes_codes ? launch<true, true> : launch<true, false>)
                         : (writes_codes ? launch<false, true> : launch<false, false>);
  run(context, params);
}

}  // namespace octavo::ops
