#include "device/cpu/cpu_info.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string_view>

namespace octavo::device {
namespace {

enum class IsaLevel { kBaseline, kAvx2, kAvx512, kAvx512Bf16 };

/// What OCTAVO_MAX_ISA allows; everything when it is unset or unknown.
IsaLevel allowed_level() {
  const char* text = std::getenv("OCTAVO_MAX_ISA");
  const std::string_view value = text == nullptr ? "" : text;
  if (value == "baseline") return IsaLevel::kBaseline;
  if (value == "avx2") return IsaLevel::kAvx2;
  if (value == "avx512") return IsaLevel::kAvx512;
  return IsaLevel::kAvx512Bf16;
}

}  // namespace

void detect_instruction_sets([[maybe_unused]] DeviceTraits& traits) {
#if defined(__x86_64__)
  const IsaLevel allowed = allowed_level();
  // These built-ins ask the operating system too (XGETBV): AVX-512 without its register state saved is no AVX-512.
  traits.has_avx2 = allowed >= IsaLevel::kAvx2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  traits.has_avx512 = allowed >= IsaLevel::kAvx512 && traits.has_avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  traits.has_avx512_bf16 =
      allowed >= IsaLevel::kAvx512Bf16 && traits.has_avx512 && __builtin_cpu_supports("avx512bf16");
#endif
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (!line.starts_with("model name")) continue;
    const std::size_t colon = line.find(':');
    const std::size_t begin = colon == std::string::npos ? colon : line.find_first_not_of(" \t", colon + 1);
    if (begin != std::string::npos) return line.substr(begin);
  }
  return "CPU";
}

double cgroup_quota(const std::filesystem::path& directory) {
  std::ifstream v2(directory / "cpu.max");
  std::string quota_text;
  double period = 0;
  if (v2 >> quota_text >> period) {
    const double quota = quota_text == "max" ? 0 : std::strtod(quota_text.c_str(), nullptr);
    return quota > 0 && period > 0 ? quota / period : 0;
  }
  std::ifstream quota_file(directory / "cpu.cfs_quota_us");
  std::ifstream period_file(directory / "cpu.cfs_period_us");
  double quota = 0;
  if (quota_file >> quota && period_file >> period && quota > 0 && period > 0) return quota / period;
  return 0;
}

int available_threads() {
  int threads = 0;
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof(mask), &mask) == 0) threads = CPU_COUNT(&mask);
  if (threads == 0) threads = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));  // more CPUs than a cpu_set_t holds
  // Inside a container its own cgroup is mounted at the root of these.
  for (const char* directory : {"/sys/fs/cgroup", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"}) {
    const double quota = cgroup_quota(directory);
    if (quota > 0) threads = std::min(threads, static_cast<int>(std::ceil(quota)));
  }
  return std::max(threads, 1);
}

std::size_t physical_memory_bytes() {
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page_bytes = sysconf(_SC_PAGESIZE);
  return pages > 0 && page_bytes > 0 ? static_cast<std::size_t>(pages) * static_cast<std::size_t>(page_bytes) : 0;
}

}  // namespace octavo::device
