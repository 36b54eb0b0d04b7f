#include "device/cuda/cudnn_choice.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>

#include "base/sha256.h"

namespace octavo::device::cuda {
namespace {

/// Device memory for timing, given back to the driver at once: it is far more than a picture needs.
class TimingMemory {
 public:
  explicit TimingMemory(std::size_t bytes) {
    if (cudaMalloc(&data_, std::max<std::size_t>(bytes, 1)) != cudaSuccess) {
      cudaGetLastError();
      data_ = nullptr;
    }
  }
  ~TimingMemory() {
    if (data_ != nullptr) cudaFree(data_);
  }
  TimingMemory(const TimingMemory&) = delete;
  TimingMemory& operator=(const TimingMemory&) = delete;
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

class Event {
 public:
  Event() { check(cudaEventCreate(&event_), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "cudaEventRecord"); }
  float milliseconds_since(const Event& earlier) const {
    check(cudaEventSynchronize(event_), "cudaEventSynchronize");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, earlier.event_, event_), "cudaEventElapsedTime");
    return milliseconds;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

constexpr std::size_t align(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

/// Values of about normal distribution in bf16 (seen as f32: of the same size). Zeros would draw less power and look
/// faster than any picture.
void fill_with_noise(cudaStream_t stream, void* data, std::size_t bytes) {
  constexpr std::size_t kPattern = std::size_t{1} << 19;  // values
  static const std::vector<std::uint16_t> pattern = [] {
    std::vector<std::uint16_t> values(kPattern);
    std::uint32_t state = 1;
    for (std::uint16_t& value : values) {
      float sum = 0;
      for (int i = 0; i < 4; ++i) {
        state = state * 1664525u + 1013904223u;
        sum += static_cast<float>(state >> 8) * 0x1p-24f - 0.5f;
      }
      std::uint32_t bits = 0;
      std::memcpy(&bits, &sum, sizeof bits);
      value = static_cast<std::uint16_t>(bits >> 16 & 0xFFFEu);  // as two codes of E4M3, too, no NaN
    }
    return values;
  }();
  const std::size_t first = std::min(bytes, pattern.size() * sizeof(std::uint16_t));
  check(cudaMemcpyAsync(data, pattern.data(), first, cudaMemcpyHostToDevice, stream), "cudaMemcpyAsync");
  for (std::size_t done = first; done < bytes; done *= 2) {
    check(cudaMemcpyAsync(static_cast<std::byte*>(data) + done, data, std::min(done, bytes - done),
                          cudaMemcpyDeviceToDevice, stream),
          "cudaMemcpyAsync");
  }
}

using Plan = std::shared_ptr<const CudnnPlan>;

struct Choice {
  Plan plan;
  bool timed = false;
};

/// The fastest of `plans`, the first (cuDNN's favourite) when there is no memory to time them in.
Choice fastest(CudaDevice& device, const CudnnGraph& graph, const std::vector<Plan>& plans) {
  if (plans.size() == 1) return {plans.front(), true};
  std::size_t tensor_bytes = 0, workspace_bytes = 0;
  for (const CudnnGraph::Bound& bound : graph.bound()) tensor_bytes += align(bound.bytes);
  for (const Plan& plan : plans) workspace_bytes = std::max(workspace_bytes, plan->workspace_bytes());
  const TimingMemory memory(tensor_bytes + workspace_bytes);
  if (memory.data() == nullptr) return {plans.front(), false};
  CudaStream owned_stream;
  const cudaStream_t stream = owned_stream.handle();
  fill_with_noise(stream, memory.data(), tensor_bytes);
  std::vector<void*> pointers;
  auto* next = static_cast<std::byte*>(memory.data());
  float scalar = 0.125f;
  for (const CudnnGraph::Bound& bound : graph.bound()) {
    pointers.push_back(bound.bytes == 0 ? static_cast<void*>(&scalar) : next);
    next += align(bound.bytes);
  }
  check(cudnnSetStream(device.cudnn(), stream), "cudnnSetStream");
  constexpr int kRounds = 4;         // the first warms up
  constexpr double kHopeless = 1.4;  // times the best so far: not tried again
  std::vector<double> best(plans.size(), std::numeric_limits<double>::infinity());
  Event begin, end;
  for (int round = 0; round < kRounds; ++round) {
    const double leader = *std::min_element(best.begin(), best.end());
    for (std::size_t i = 0; i < plans.size(); ++i) {
      if (round > 1 && best[i] > leader * kHopeless) continue;
      begin.record(stream);
      plans[i]->run(device.cudnn(), pointers, next);
      end.record(stream);
      const double time = end.milliseconds_since(begin);
      if (round > 0) best[i] = std::min(best[i], time);
    }
  }
  return {plans[static_cast<std::size_t>(std::min_element(best.begin(), best.end()) - best.begin())], true};
}

Choice choose(CudaDevice& device, const std::string& key, const CudnnGraph& graph, CudnnDemands demands) {
  const CudnnTarget target(device.cudnn());
  auto configs = graph.configs(target);
  OCTAVO_CHECK(configs.ok(), "{}: {}", key, configs.status().to_string());
  // cuDNN's list begins with what it expects to be fast.
  constexpr std::size_t kMostReady = 10, kMostCompiled = 4;
  constexpr std::size_t kMostWorkspace = std::size_t{256} << 20;
  std::vector<Plan> plans;
  Plan modest;  // the least of those that want too much
  std::string refusal = "no config";
  // Those that cuDNN compiles take half a second each, and nothing is compiled at run time that need not be.
  for (const bool compiled : {false, true}) {
    if (!plans.empty() || modest != nullptr) break;
    const std::size_t most = compiled ? kMostCompiled : kMostReady;
    for (const CudnnConfig& config : *configs) {
      if (config.compiled != compiled || plans.size() == most) continue;
      if (!config.deterministic || (demands.exact_products && !config.exact_products)) continue;
      auto plan = CudnnPlan::build(target, config);
      if (!plan.ok()) {
        refusal = plan.status().to_string();
      } else if ((*plan)->workspace_bytes() > kMostWorkspace) {
        if (modest == nullptr || (*plan)->workspace_bytes() < modest->workspace_bytes()) modest = *plan;
      } else {
        plans.push_back(std::move(*plan));
      }
    }
  }
  if (plans.empty() && modest != nullptr) plans.push_back(modest);
  OCTAVO_CHECK(!plans.empty(), "{}: cuDNN {} has no plan for it: {}", key, cudnnGetVersion(), refusal);
  return fastest(device, graph, plans);
}

/// Letters, digits and dashes; what lies between them as one underscore.
std::string as_file_name(std::string_view text) {
  std::string name;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
    if (plain) {
      name += c;
    } else if (!name.empty() && name.back() != '_') {
      name += '_';
    }
  }
  return name;
}

std::filesystem::path file_of(CudaDevice& device, const std::string& key) {
  const std::string kind =
      fmt::format("cudnn {} {} {}", cudnnGetVersion(), device.gpu_name(), device.multiprocessors());
  return device.cache_folder() / as_file_name(kind) / (as_file_name(key) + ".json");
}

/// Nothing when there is no such file, it is not whole or of another problem, or this cuDNN does not take it. A file is
/// the digest of key and plan, a line's end, and the plan.
Plan stored(CudaDevice& device, const std::string& key) {
  std::ifstream file(file_of(device, key), std::ios::binary);
  std::string digest;
  if (!std::getline(file, digest)) return nullptr;
  const std::string json((std::istreambuf_iterator<char>(file)), {});
  if (sha256_hex(key + json) != digest) {
    spdlog::debug("{}: the stored plan is damaged", key);
    return nullptr;
  }
  auto plan = CudnnPlan::from_json(CudnnTarget(device.cudnn()), json);
  if (plan.ok()) return std::move(*plan);
  spdlog::debug("{}: the stored plan is not taken: {}", key, plan.status().to_string());
  return nullptr;
}

/// A cache that cannot be written is only slower.
void store(CudaDevice& device, const std::string& key, const CudnnPlan& plan) {
  const auto json = plan.json();
  if (!json.ok()) return;
  const std::filesystem::path file = file_of(device, key);
  std::filesystem::path half = file;
  half += fmt::format(".{}", getpid());  // another process may write the same
  std::error_code failure;
  std::filesystem::create_directories(file.parent_path(), failure);
  {
    std::ofstream out(half, std::ios::binary);
    out << sha256_hex(key + *json) << '\n' << *json;
    if (!out.flush()) failure = std::make_error_code(std::errc::io_error);
  }
  if (!failure) std::filesystem::rename(half, file, failure);
  if (failure) {
    std::filesystem::remove(half, failure);
    spdlog::debug("{} could not be written: {}", file.string(), failure.message());
  }
}

}  // namespace

std::shared_ptr<const CudnnPlan> choose_plan(CudaDevice& device, const std::string& key,
                                             const std::function<CudnnGraph()>& describe, CudnnDemands demands) {
  static std::mutex mutex;
  // Of the process's one GPU. Never destroyed: at exit cuDNN is gone before this library is.
  static auto& plans = *new std::map<std::string, Plan, std::less<>>;
  const std::lock_guard lock(mutex);
  Plan& plan = plans[key];
  if (plan == nullptr) {
    plan = stored(device, key);
    if (plan == nullptr) {
      const Choice choice = choose(device, key, describe(), demands);
      plan = choice.plan;
      if (choice.timed) store(device, key, *plan);
    }
  }
  return plan;
}

}  // namespace octavo::device::cuda
