// What the tests of CUDA rows share: a context on the GPU, tensors there, and the CPU's answer beside the GPU's.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "device/cuda_backend.h"
#include "ops/op_test.h"

namespace octavo::ops {

/// The GPU of this machine as one architecture; null with the reason printed where there is none.
inline device::Device* test_gpu(int force_architecture = 0) {
  static std::map<int, std::unique_ptr<device::Device>> devices;
  auto& device = devices[force_architecture];
  if (device == nullptr) {
    auto backend = device::open_cuda_backend();
    if (!backend.ok()) {
      std::fprintf(stderr, "%s\n", backend.status().to_string().c_str());
      return nullptr;
    }
    auto created = (*backend)->create_device({.force_architecture = force_architecture});
    if (!created.ok()) {
      std::fprintf(stderr, "%s\n", created.status().to_string().c_str());
      return nullptr;
    }
    device = std::move(*created);
  }
  return device.get();
}

/// First line of a test of CUDA rows.
#define OCTAVO_REQUIRE_GPU() \
  if (::octavo::ops::test_gpu() == nullptr) GTEST_SKIP() << "no GPU"

/// A context on the GPU with scratch.
class GpuContext {
 public:
  explicit GpuContext(int force_architecture = 0, std::size_t scratch_bytes = std::size_t{256} << 20)
      : device_(*test_gpu(force_architecture)), stream_(device_.create_stream()), context_(device_, *stream_, arena_) {
    OCTAVO_CHECK(arena_.reserve(device_, scratch_bytes).ok(), "no GPU memory for a test");
  }
  ExecutionContext& get() { return context_; }
  device::Device& device() { return device_; }
  ExecutionContext& with_row(std::string_view op, std::string_view row) {
    context_.set_kernel_overrides({{std::string(op), std::string(row)}});
    return context_;
  }
  /// The table's CUDA rows that can compute these arguments here.
  template <typename Args>
  std::vector<std::string_view> rows_for(const KernelTable<Args>& table, const Args& args) const {
    std::vector<std::string_view> names;
    for (const auto& row : table.rows()) {
      if (row.device != DeviceKind::kCuda) continue;
      if (row.supports == nullptr || row.supports(args, context_.traits())) names.push_back(row.name);
    }
    return names;
  }

 private:
  device::Device& device_;
  std::unique_ptr<device::Stream> stream_;
  device::Arena arena_;
  ExecutionContext context_;
};

/// A test tensor's twin on the GPU, with the same strides and padding.
class GpuTensor {
 public:
  GpuTensor(GpuContext& gpu, const TestTensor& host) : gpu_(gpu), host_(host) {
    buffer_ = std::move(*gpu.device().allocate(host.all_bytes().size()));
    upload();
    view_ = host.view().moved_to(buffer_.data());
  }
  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }  // NOLINT: implicit, so that tests read like calls
  void upload() {
    gpu_.device().copy_to_device(gpu_.get().stream(), buffer_.data(), host_.all_bytes().data(),
                                 host_.all_bytes().size());
    gpu_.get().stream().synchronize();
  }
  /// What lies on the GPU now, padding included; waits for it.
  TestTensor download() const {
    TestTensor copy = host_;
    gpu_.device().copy_to_host(gpu_.get().stream(), copy.all_bytes().data(), buffer_.data(), copy.all_bytes().size());
    gpu_.get().stream().synchronize();
    return copy;
  }

 private:
  GpuContext& gpu_;
  TestTensor host_;
  device::Buffer buffer_;
  TensorView view_;
};

}  // namespace octavo::ops
