#include "device/cuda_backend.h"

#include <dlfcn.h>
#include <unistd.h>

#include <charconv>
#include <climits>
#include <cstdlib>
#include <filesystem>

#include "base/log.h"

namespace octavo::device {
namespace {

constexpr const char* kLibrary = "liboctavo_cuda.so";

std::filesystem::path program_folder() {
  std::string path(PATH_MAX, '\0');
  const ssize_t length = readlink("/proc/self/exe", path.data(), path.size());
  return length <= 0 ? std::filesystem::path(".")
                     : std::filesystem::path(path.substr(0, static_cast<std::size_t>(length))).parent_path();
}

std::vector<std::filesystem::path> candidates() {
  if (const char* given = std::getenv("OCTAVO_CUDA_BACKEND"); given != nullptr && *given != '\0') return {given};
  const std::filesystem::path folder = program_folder();
  return {folder / kLibrary, folder.parent_path() / "lib" / kLibrary};
}

/// Libraries that ours needs, from the folders a user names: found by their names once they are loaded.
void preload_from(const char* folders) {
  if (folders == nullptr) return;
  const std::string all(folders);
  for (std::size_t begin = 0; begin <= all.size();) {
    const std::size_t end = std::min(all.find(':', begin), all.size());
    const std::filesystem::path folder = all.substr(begin, end - begin);
    for (const char* name : {"libcublasLt.so.13", "libcudnn.so.9"}) {
      std::error_code ignored;
      if (std::filesystem::exists(folder / name, ignored)) dlopen((folder / name).c_str(), RTLD_NOW | RTLD_GLOBAL);
    }
    begin = end + 1;
  }
}

Result<const CudaBackend*> open_once() {
  preload_from(std::getenv("OCTAVO_CUDA_LIBRARY_PATH"));
  std::filesystem::path path;
  for (const auto& candidate : candidates()) {
    std::error_code ignored;
    if (std::filesystem::exists(candidate, ignored)) {
      path = candidate;
      break;
    }
  }
  if (path.empty()) return not_found("CUDA", "this build has no CUDA backend (see docs/cuda.md)");
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    return unavailable("CUDA", std::string("the CUDA backend cannot be opened: ") + (reason ? reason : "?") +
                                   "; OCTAVO_CUDA_LIBRARY_PATH names folders with cuBLASLt 13 and cuDNN 9");
  }
  using Entry = const CudaBackend* (*)();
  const auto entry = reinterpret_cast<Entry>(dlsym(library, kCudaBackendSymbol));
  const CudaBackend* backend = entry == nullptr ? nullptr : entry();
  if (backend == nullptr || std::string_view(backend->build) != OCTAVO_CUDA_BUILD) {
    return unavailable("CUDA", path.string() + " is of another build than this program");
  }
  backend->add_rows();
  return backend;
}

}  // namespace

Result<const CudaBackend*> open_cuda_backend() {
  static const Result<const CudaBackend*> opened = open_once();
  return opened;
}

Result<DeviceChoice> parse_device(const std::string& text) {
  DeviceChoice choice;
  if (text == "auto") return choice;
  if (text == "cpu") {
    choice.kind = DeviceChoice::Kind::kCpu;
    return choice;
  }
  constexpr std::string_view kCuda = "cuda";
  if (text.starts_with(kCuda)) {
    choice.kind = DeviceChoice::Kind::kCuda;
    if (text.size() == kCuda.size()) return choice;
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data() + kCuda.size() + 1, end, choice.cuda.index);
    if (text[kCuda.size()] == ':' && parsed.ec == std::errc() && parsed.ptr == end && choice.cuda.index >= 0) {
      return choice;
    }
  }
  return invalid_argument("--device", "must be auto, cpu, cuda or cuda:N, not '" + text + "'");
}

Result<std::unique_ptr<Device>> create_device(const DeviceChoice& choice) {
  if (choice.kind == DeviceChoice::Kind::kCpu) return create_cpu_device(choice.threads);
  const bool asked = choice.kind == DeviceChoice::Kind::kCuda;
  auto backend = open_cuda_backend();
  if (backend.ok()) {
    auto device = (*backend)->create_device(choice.cuda);
    const bool user_error = !device.ok() && device.status().code() == ErrorCode::kInvalidArgument;
    if (device.ok() || asked || user_error) return device;
    spdlog::info("computing on the CPU: {}", device.status().to_string());
  } else if (asked || choice.cuda.force_architecture != 0) {
    return backend.status();
  } else if (backend.status().code() == ErrorCode::kNotFound) {
    spdlog::debug("computing on the CPU: {}", backend.status().to_string());
  } else {
    spdlog::warn("computing on the CPU: {}", backend.status().to_string());
  }
  return create_cpu_device(choice.threads);
}

}  // namespace octavo::device
