// What this processor and this process's share of it can do.
#pragma once

#include <filesystem>
#include <string>

#include "device/device.h"

namespace octavo::device {

/// The instruction sets that kernels choose by, as the processor and the operating system both allow them.
/// OCTAVO_MAX_ISA=baseline|avx2|avx512|avx512_bf16 lowers them, to test on a big machine what a small one runs.
void detect_instruction_sets(DeviceTraits& traits);

/// "model name" of /proc/cpuinfo, or "CPU".
std::string processor_name();

/// Cores this process may use: the affinity mask, lowered to a cgroup's CPU quota (rounded up). At least 1.
int available_threads();

/// The CPU quota in cores of a cgroup v2 `cpu.max` or v1 `cpu.cfs_quota_us`/`cpu.cfs_period_us` at `directory`; 0 =
/// none.
double cgroup_quota(const std::filesystem::path& directory);

/// Physical memory, or 0 when it cannot be told.
std::size_t physical_memory_bytes();

}  // namespace octavo::device
