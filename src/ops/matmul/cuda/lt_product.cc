#include "ops/matmul/cuda/lt_product.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/guarded.h"
#include "base/log.h"
#include "ops/cuda/choice_file.h"

namespace octavo::ops {
namespace {

using device::cuda::check;
using device::cuda::CudaDevice;

constexpr int kCandidates = 16;
constexpr float kSplitGain = 0.97f;

/// cuBLASLt's own description of a shape with operands; plain memory, made anew for every call.
struct Description {
  cublasLtMatmulDescOpaque_t operation{};
  cublasLtMatrixLayoutOpaque_t weight{}, x{}, addend{}, out{};
  float one = 1, zero = 0;
  std::int32_t integer_one = 1, integer_zero = 0;
};

template <typename T>
void set(Description& d, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  check(cublasLtMatmulDescSetAttribute(&d.operation, attribute, &value, sizeof value),
        "cublasLtMatmulDescSetAttribute");
}

void lay_out(cublasLtMatrixLayoutOpaque_t& layout, std::int32_t type, std::int64_t rows, std::int64_t columns,
             std::int64_t stride, std::int32_t batch, std::int64_t batch_stride) {
  check(cublasLtMatrixLayoutInit(&layout, static_cast<cudaDataType>(type), static_cast<std::uint64_t>(rows),
                                 static_cast<std::uint64_t>(columns), stride),
        "cublasLtMatrixLayoutInit");
  if (batch == 1) return;
  check(cublasLtMatrixLayoutSetAttribute(&layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch),
        "cublasLtMatrixLayoutSetAttribute");
  check(cublasLtMatrixLayoutSetAttribute(&layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &batch_stride,
                                         sizeof batch_stride),
        "cublasLtMatrixLayoutSetAttribute");
}

bool is_float8(std::int32_t type) { return type == CUDA_R_8F_E4M3 || type == CUDA_R_8F_E5M2; }

void describe(const LtShape& shape, const LtOperands& operands, Description& d) {
  check(cublasLtMatmulDescInit(&d.operation, shape.integer != 0 ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                               shape.integer != 0 ? CUDA_R_32I : CUDA_R_32F),
        "cublasLtMatmulDescInit");
  set(d, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  set(d, CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_N);
  const bool bias = shape.bias_type >= 0;
  const cublasLtEpilogue_t epilogue = shape.gelu != 0 ? (bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU)
                                                      : (bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT);
  set(d, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
  if (bias) {
    set(d, CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.bias);
    set(d, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, shape.bias_type);
  }
  if (is_float8(shape.weight_type)) {
    // Sums that leave the tensor core's registers every 128 elements cost 4 to 7 % and E4M3 gains nothing that shows.
    set(d, CUBLASLT_MATMUL_DESC_FAST_ACCUM, std::int8_t{1});
    if (shape.scaling == static_cast<std::int32_t>(LtScaling::kVectors)) {
      const std::int32_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
      set(d, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, mode);
      set(d, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, mode);
    }
    if (shape.scaling != static_cast<std::int32_t>(LtScaling::kNone)) {
      set(d, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, operands.weight_scale);
      set(d, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, operands.x_scale);
    }
    if (is_float8(shape.out_type)) set(d, CUBLASLT_MATMUL_DESC_D_SCALE_POINTER, operands.out_quant_scale);
  }
  lay_out(d.weight, shape.weight_type, shape.inner, shape.width, shape.weight_stride, shape.batch, 0);
  lay_out(d.x, shape.x_type, shape.inner, shape.rows, shape.x_stride, shape.batch, shape.x_batch_stride);
  // Beside an out of 8-bit floats the library wants an addend described that is not there, of 16 bits.
  const std::int32_t addend_type = is_float8(shape.out_type) ? CUDA_R_16BF : shape.out_type;
  const bool adds = shape.adds != 0;
  lay_out(d.addend, addend_type, shape.width, shape.rows, adds ? shape.addend_stride : shape.out_stride, shape.batch,
          adds ? shape.addend_batch_stride : shape.out_batch_stride);
  lay_out(d.out, shape.out_type, shape.width, shape.rows, shape.out_stride, shape.batch, shape.out_batch_stride);
}

cublasStatus_t enqueue(CudaDevice& gpu, cudaStream_t stream, const LtShape& shape, const LtOperands& operands,
                       void* out, Description& d, const cublasLtMatmulAlgo_t& algorithm, void* workspace) {
  const bool adds = shape.adds != 0;
  const void* alpha = shape.integer != 0 ? static_cast<const void*>(&d.integer_one) : &d.one;
  const void* beta = shape.integer != 0 ? static_cast<const void*>(adds ? &d.integer_one : &d.integer_zero)
                                        : (adds ? &d.one : &d.zero);
  const void* addend = adds ? operands.addend : is_float8(shape.out_type) ? nullptr : out;
  return cublasLtMatmul(gpu.lt(), &d.operation, alpha, operands.weight, &d.weight, operands.x, &d.x, beta, addend,
                        &d.addend, out, &d.out, &algorithm, workspace, kLtWorkspaceBytes, stream);
}

template <typename T>
T config_of(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute) {
  T value{};
  std::size_t written = 0;
  cublasLtMatmulAlgoConfigGetAttribute(&algorithm, attribute, &value, sizeof value, &written);
  return value;
}

/// Partial sums of K are added up by several blocks.
bool splits_sums(const cublasLtMatmulAlgo_t& algorithm) {
  return config_of<std::int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM) > 1 ||
         config_of<std::uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME) != CUBLASLT_REDUCTION_SCHEME_NONE;
}

std::string words_of(const LtShape& s) {
  return fmt::format(
      "x [{}x{}, {}] type {} with weight [{}, {}] type {} into type {}, bias {}, scaling {}, gelu {}, adds {}", s.batch,
      s.rows, s.inner, s.x_type, s.width, s.inner, s.weight_type, s.out_type, s.bias_type, s.scaling, s.gelu, s.adds);
}

/// Whether cuBLASLt says that it can run this shape so.
bool agrees(CudaDevice& gpu, Description& d, const cublasLtMatmulAlgo_t& algorithm) {
  cublasLtMatmulHeuristicResult_t result{};
  return cublasLtMatmulAlgoCheck(gpu.lt(), &d.operation, &d.weight, &d.x, &d.addend, &d.out, &algorithm, &result) ==
             CUBLAS_STATUS_SUCCESS &&
         result.workspaceSize <= kLtWorkspaceBytes;
}

std::vector<cublasLtMatmulAlgo_t> candidates(CudaDevice& gpu, const LtShape& shape, Description& d) {
  cublasLtMatmulPreferenceOpaque_t preference{};
  check(cublasLtMatmulPreferenceInit(&preference), "cublasLtMatmulPreferenceInit");
  const auto prefer = [&preference](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    check(cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof value),
          "cublasLtMatmulPreferenceSetAttribute");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kLtWorkspaceBytes);
  // Partial sums of a split K stay in f32 whatever the output is.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
         static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  const auto alignment = static_cast<std::uint32_t>(shape.alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment);
  std::array<cublasLtMatmulHeuristicResult_t, kCandidates> results{};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      gpu.lt(), &d.operation, &d.weight, &d.x, &d.addend, &d.out, &preference, kCandidates, results.data(), &count);
  std::vector<cublasLtMatmulAlgo_t> found;
  if (status != CUBLAS_STATUS_SUCCESS) return found;  // not supported, or nothing that is: the caller has other ways
  for (int i = 0; i < count; ++i) {
    if (results[static_cast<std::size_t>(i)].state == CUBLAS_STATUS_SUCCESS) {
      found.push_back(results[static_cast<std::size_t>(i)].algo);
    }
  }
  return found;
}

/// What the library offers. For some row counts it offers nothing though those of others run: these are checked then.
std::vector<cublasLtMatmulAlgo_t> all_candidates(CudaDevice& gpu, const LtShape& shape, const LtOperands& operands,
                                                 Description& d) {
  std::vector<cublasLtMatmulAlgo_t> found = candidates(gpu, shape, d);
  for (const std::int64_t rows : {2 * shape.rows, 4 * shape.rows, shape.rows / 2, std::int64_t{1024}}) {
    if (!found.empty()) break;
    if (rows == 0) continue;
    LtShape other = shape;
    other.rows = rows;
    Description other_d;
    describe(other, operands, other_d);
    for (const cublasLtMatmulAlgo_t& algorithm : candidates(gpu, other, other_d)) {
      if (agrees(gpu, d, algorithm)) found.push_back(algorithm);
    }
  }
  return found;
}

/// Other settings of an offered algorithm that the library accepts for this shape. For scales in vectors it offers one
/// alone of some fifty, and not the fastest: 17 % slower for K = 9728.
std::vector<cublasLtMatmulAlgo_t> variations(CudaDevice& gpu, Description& d, const cublasLtMatmulAlgo_t& offered) {
  constexpr std::uint32_t kMostOptions = 16;
  std::uint32_t most = 0;
  std::size_t written = 0;
  if (cublasLtMatmulAlgoCapGetAttribute(&offered, CUBLASLT_ALGO_CAP_CUSTOM_OPTION_MAX, &most, sizeof most, &written) !=
      CUBLAS_STATUS_SUCCESS) {
    return {};
  }
  std::vector<cublasLtMatmulAlgo_t> accepted;
  for (std::uint32_t option = 0; option <= std::min(most, kMostOptions); ++option) {
    for (std::uint16_t cluster = 0; cluster < CUBLASLT_CLUSTER_SHAPE_END; ++cluster) {
      cublasLtMatmulAlgo_t varied = offered;
      cublasLtMatmulAlgoConfigSetAttribute(&varied, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, &option, sizeof option);
      cublasLtMatmulAlgoConfigSetAttribute(&varied, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, &cluster, sizeof cluster);
      if (std::memcmp(&varied, &offered, sizeof varied) != 0 && agrees(gpu, d, varied)) accepted.push_back(varied);
    }
  }
  return accepted;
}

/// A pair of events around a call.
class Stopwatch {
 public:
  Stopwatch() {
    check(cudaEventCreate(&begin_), "cudaEventCreate");
    check(cudaEventCreate(&end_), "cudaEventCreate");
  }
  ~Stopwatch() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  void start(cudaStream_t stream) { check(cudaEventRecord(begin_, stream), "cudaEventRecord"); }
  float stop(cudaStream_t stream) {
    check(cudaEventRecord(end_, stream), "cudaEventRecord");
    check(cudaEventSynchronize(end_), "cudaEventSynchronize");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin_, end_), "cudaEventElapsedTime");
    return ms;
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

/// Elements of memory that a product writes, from its first to its last.
std::int64_t out_span(const LtShape& shape) {
  return (shape.batch - 1) * shape.out_batch_stride + (shape.rows - 1) * shape.out_stride + shape.width;
}

std::size_t bytes_of(std::int32_t type) {
  switch (type) {
    case CUDA_R_32F:
    case CUDA_R_32I:
      return 4;
    case CUDA_R_16BF:
    case CUDA_R_16F:
      return 2;
    default:
      return 1;
  }
}

struct Timed {
  cublasLtMatmulAlgo_t algorithm{};
  std::vector<float> times;
  bool offered = true;
  float median() const {
    std::vector<float> sorted = times;
    std::ranges::sort(sorted);
    return sorted[sorted.size() / 2];
  }
};

/// The first and the last rows of out, as they lie.
std::string some_rows(cudaStream_t stream, const LtShape& shape, const void* out) {
  constexpr std::int64_t kRows = 64;
  const std::int64_t row_bytes = shape.out_stride * static_cast<std::int64_t>(bytes_of(shape.out_type));
  const std::int64_t rows = std::min(shape.rows, kRows);
  const auto bytes = static_cast<std::size_t>((rows - 1) * row_bytes) +
                     static_cast<std::size_t>(shape.width) * bytes_of(shape.out_type);
  std::string found(2 * bytes, '\0');
  const auto* at = static_cast<const std::byte*>(out);
  for (const std::int64_t first : {std::int64_t{0}, shape.rows - rows}) {
    check(cudaMemcpyAsync(found.data() + (first > 0 ? bytes : 0), at + first * row_bytes, bytes, cudaMemcpyDeviceToHost,
                          stream),
          "cudaMemcpyAsync");
  }
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  return found;
}

/// The fastest of `found`, of which the first `offered` come from the library as they are; one that does not must
/// compute the same bits as the first. Nothing when none runs or there is no memory to try them in.
std::optional<cublasLtMatmulAlgo_t> measure(CudaDevice& gpu, cudaStream_t stream, const LtShape& shape,
                                            const LtOperands& operands, Description& d,
                                            const std::vector<cublasLtMatmulAlgo_t>& found, std::size_t offered,
                                            void* workspace) {
  constexpr int kRounds = 9;
  constexpr float kHopeless = 1.4f;  // after a warm round
  void* out = operands.out;
  device::Buffer elsewhere;  // out may be what is added: it must be whole for the call that counts
  if (shape.adds != 0) {
    auto buffer =
        gpu.allocate(static_cast<std::size_t>(out_span(shape)) * bytes_of(shape.out_type), device::MemoryKind::kDevice);
    if (!buffer.ok()) return std::nullopt;
    elsewhere = std::move(*buffer);
    out = elsewhere.data();
  }
  // Nothing else may run beside what is timed; nothing is enqueued by others meanwhile, for ops come from one thread.
  check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  Stopwatch watch;
  std::vector<Timed> timed;
  for (const cublasLtMatmulAlgo_t& algorithm : found) {
    if (enqueue(gpu, stream, shape, operands, out, d, algorithm, workspace) == CUBLAS_STATUS_SUCCESS) {
      timed.push_back({algorithm, {}, timed.size() < offered});
    }
  }
  for (int round = 0; round < kRounds && !timed.empty(); ++round) {
    float best = std::numeric_limits<float>::max();
    for (Timed& one : timed) {
      watch.start(stream);
      enqueue(gpu, stream, shape, operands, out, d, one.algorithm, workspace);
      one.times.push_back(watch.stop(stream));
      best = std::min(best, one.times.back());
    }
    if (round == 1) std::erase_if(timed, [best](const Timed& one) { return one.times.back() > kHopeless * best; });
  }
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  const auto cost = [](const Timed& one) {
    return one.median() * (splits_sums(one.algorithm) ? 1 / kSplitGain : 1.0f);
  };
  std::ranges::sort(timed, [&cost](const Timed& a, const Timed& b) { return cost(a) < cost(b); });
  const auto bits_of = [&](const cublasLtMatmulAlgo_t& algorithm) {
    const cublasStatus_t status = enqueue(gpu, stream, shape, operands, out, d, algorithm, workspace);
    return status == CUBLAS_STATUS_SUCCESS ? some_rows(stream, shape, out) : std::string();
  };
  std::string expected;
  for (Timed& one : timed) {
    if (!one.offered) {
      if (expected.empty()) expected = bits_of(found.front());
      if (expected.empty() || bits_of(one.algorithm) != expected) continue;
    }
    spdlog::debug("cuBLASLt: {}: {:.4f} ms, {} of {} candidates", words_of(shape), one.median(),
                  one.offered ? "offered" : "varied", found.size());
    return one.algorithm;
  }
  return std::nullopt;
}

std::string bytes_of_shape(const LtShape& shape) {
  return std::string(reinterpret_cast<const char*>(&shape), sizeof shape);
}

/// Choices of this process, by GPU; an empty value says that there is no algorithm.
struct Store {
  std::map<std::string, Choices> by_gpu;  // "<file>": choices
};
Guarded<Store>& store() {
  static Guarded<Store> store;
  return store;
}

std::string identity_of(const CudaDevice& gpu) {
  return fmt::format("cuBLASLt {} {} SMs {} sm_{}", cublasLtGetVersion(), gpu.gpu_name(), gpu.multiprocessors(),
                     gpu.architecture());
}

std::filesystem::path file_of(const CudaDevice& gpu, std::string identity) {
  for (char& c : identity) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '-';
  }
  return gpu.cache_folder() / (identity + ".choices");
}

/// The algorithm of a stored choice, if it is one.
std::optional<cublasLtMatmulAlgo_t> agreed(CudaDevice& gpu, Description& d, const std::string& choice) {
  cublasLtMatmulAlgo_t algorithm{};
  if (choice.size() != sizeof algorithm) return std::nullopt;
  std::memcpy(&algorithm, choice.data(), sizeof algorithm);
  if (!agrees(gpu, d, algorithm)) return std::nullopt;
  return algorithm;
}

std::optional<cublasLtMatmulAlgo_t> choose(const device::ExecutionContext& context, const LtShape& shape,
                                           const LtOperands& operands, Description& d, void* workspace) {
  CudaDevice& gpu = device::cuda::device_of(context);
  auto& stream = static_cast<device::cuda::CudaStream&>(context.stream());
  const std::string identity = identity_of(gpu);
  const std::string key = bytes_of_shape(shape);
  {
    auto access = store().lock();
    const auto [mine, first] = access->by_gpu.try_emplace(identity);
    Choices& choices = mine->second;
    if (first) {
      // Every choice that comes from a file is checked with the library when it is first used.
      for (auto& [stored_key, value] : read_choices(file_of(gpu, identity), identity)) {
        choices.emplace("?" + stored_key, value);
      }
    }
    if (const auto known = choices.find(key); known != choices.end()) {
      if (known->second.empty()) return std::nullopt;
      cublasLtMatmulAlgo_t algorithm{};
      std::memcpy(&algorithm, known->second.data(), sizeof algorithm);
      return algorithm;
    }
    if (const auto stored = choices.find("?" + key); stored != choices.end()) {
      if (const auto algorithm = agreed(gpu, d, stored->second)) {
        choices.emplace(key, stored->second);
        return algorithm;
      }
      choices.erase(stored);
    }
  }
  std::vector<cublasLtMatmulAlgo_t> found = all_candidates(gpu, shape, operands, d);
  std::optional<cublasLtMatmulAlgo_t> algorithm;
  bool measured = false;
  if (!found.empty()) {
    if (!stream.capturing()) {
      const std::size_t offered = found.size();
      constexpr std::size_t kFew = 4;
      if (offered < kFew || is_float8(shape.out_type)) {
        const std::vector<cublasLtMatmulAlgo_t> varied = variations(gpu, d, cublasLtMatmulAlgo_t(found.front()));
        found.insert(found.end(), varied.begin(), varied.end());
      }
      algorithm = measure(gpu, stream.handle(), shape, operands, d, found, offered, workspace);
    }
    measured = algorithm.has_value();
    if (!algorithm) algorithm = found.front();
  }
  std::string value;
  if (algorithm) value.assign(reinterpret_cast<const char*>(&*algorithm), sizeof *algorithm);
  {
    auto access = store().lock();
    const auto [at, added] = access->by_gpu[identity].emplace(key, value);
    if (!added && at->second != value && !at->second.empty()) {  // another thread was first: one choice a process
      std::memcpy(&*algorithm, at->second.data(), sizeof *algorithm);
      return algorithm;
    }
  }
  if (measured) {
    if (const Status status = add_choices(file_of(gpu, identity), identity, {{key, value}}); !status.ok()) {
      static std::once_flag warned;
      std::call_once(warned, [&] { spdlog::warn("choices of algorithms are not kept: {}", status.to_string()); });
    }
  }
  return algorithm;
}

}  // namespace

bool run_lt_product(const device::ExecutionContext& context, LtShape shape, const LtOperands& operands,
                    void* workspace) {
  std::uintptr_t addresses = 256;  // more is not asked for
  for (const void* pointer : {operands.weight, operands.x, operands.addend, static_cast<const void*>(operands.out)}) {
    addresses |= reinterpret_cast<std::uintptr_t>(pointer);
  }
  shape.alignment = std::int32_t{1} << std::countr_zero(addresses);
  Description d;
  describe(shape, operands, d);
  const auto algorithm = choose(context, shape, operands, d, workspace);
  if (!algorithm) return false;
  check(enqueue(device::cuda::device_of(context), device::cuda::stream_of(context), shape, operands, operands.out, d,
                *algorithm, workspace),
        "cublasLtMatmul");
  return true;
}

}  // namespace octavo::ops
