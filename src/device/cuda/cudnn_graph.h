// cuDNN's graphs: an operation described tensor by tensor, the ways cuDNN knows to compute it, and the fastest of them.
//
// Only cudnn.h is needed. A graph is asked about either on a GPU, through a handle, or about a GPU that is not there,
// through its properties: tests ask for every graph of the engine whether each architecture computes it.
#pragma once

#include <cudnn.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace octavo::device::cuda {

/// Owns one backend descriptor; moves only.
class CudnnDescriptor {
 public:
  CudnnDescriptor() = default;
  explicit CudnnDescriptor(cudnnBackendDescriptorType_t type);
  CudnnDescriptor(CudnnDescriptor&& other) noexcept : descriptor_(std::exchange(other.descriptor_, nullptr)) {}
  CudnnDescriptor& operator=(CudnnDescriptor&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~CudnnDescriptor();
  cudnnBackendDescriptor_t get() const { return descriptor_; }

  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count, const void* values);
  template <typename T>
  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const T& value) {
    set(name, type, 1, &value);
  }
  void set(cudnnBackendAttributeName_t name, std::span<const std::int64_t> values) {
    set(name, CUDNN_TYPE_INT64, static_cast<std::int64_t>(values.size()), values.data());
  }
  void set(cudnnBackendAttributeName_t name, const CudnnDescriptor& value) {
    set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value.descriptor_);
  }
  /// kFailedPrecondition with cuDNN's words when it does not support what was set.
  Status finalize(std::string_view what);

 private:
  cudnnBackendDescriptor_t descriptor_ = nullptr;
};

/// What a graph is asked about.
class CudnnTarget {
 public:
  explicit CudnnTarget(cudnnHandle_t handle) : handle_(handle) {}
  /// A GPU described as cuDNN's own JSON does.
  static Result<CudnnTarget> from_properties(const std::string& json);
  /// Null for a described GPU.
  cudnnHandle_t handle() const { return handle_; }
  const CudnnDescriptor& properties() const { return properties_; }

 private:
  CudnnTarget() = default;
  cudnnHandle_t handle_ = nullptr;
  CudnnDescriptor properties_;
};

/// One way to compute a graph.
struct CudnnConfig {
  CudnnDescriptor config;
  bool deterministic = true;
  bool compiled = false;       // made at run time: half a second for a plan
  bool exact_products = true;  // of f32: neither rounded to fewer bits (TF32) nor transformed (Winograd, FFT)
};

/// A config made ready to run; immutable.
class CudnnPlan {
 public:
  static Result<std::shared_ptr<const CudnnPlan>> build(const CudnnTarget& target, const CudnnConfig& config);
  /// From what json() gave on the same kind of GPU with the same cuDNN.
  static Result<std::shared_ptr<const CudnnPlan>> from_json(const CudnnTarget& target, const std::string& json);
  Result<std::string> json() const;
  std::size_t workspace_bytes() const { return workspace_bytes_; }
  /// Enqueues on the handle's stream. `pointers` of the graph's bound tensors, in the order of their declaration.
  void run(cudnnHandle_t handle, std::span<void* const> pointers, void* workspace) const;

 private:
  explicit CudnnPlan(CudnnDescriptor plan);
  static CudnnDescriptor begin(const CudnnTarget& target);
  CudnnDescriptor plan_;
  std::size_t workspace_bytes_ = 0;
};

/// The description of a computation.
class CudnnGraph {
 public:
  using Extents = std::vector<std::int64_t>;
  using Tensor = std::size_t;  // index of a tensor in this graph
  static constexpr Tensor kNone = static_cast<Tensor>(-1);

  /// Memory given at run time, aligned to 16 bytes.
  Tensor tensor(cudnnDataType_t type, const Extents& extents, const Extents& strides);
  /// One f32 given at run time by a pointer to host memory.
  Tensor host_scalar(const Extents& extents);
  /// Between two operations, never in memory; f32.
  Tensor between(const Extents& extents);
  /// The same of matrices: the last axis innermost.
  Tensor between_matrices(cudnnDataType_t type, const Extents& extents);

  struct Padding {
    std::int64_t before = 0;
    std::int64_t after = 0;
  };
  /// x [B, C, H, W], w [K, C, kh, kw], y [B, K, H', W'] in any strides; sums in f32.
  void convolution(Tensor x, Tensor w, Tensor y, std::int64_t stride, Padding rows, Padding columns);
  /// `b` is kNone for a function of one tensor.
  void pointwise(cudnnPointwiseMode_t mode, Tensor a, Tensor b, Tensor result);
  /// product [B, H, M, N] = a [B, H, M, K] b [B, H, K, N]; sums in f32.
  void matmul(Tensor a, Tensor b, Tensor product);
  /// Over the axes of which `result` has one element.
  void reduce(cudnnReduceTensorOp_t reduction, Tensor x, Tensor result);
  /// q, k, v, out [B, H, S, Dh] in any strides, 16-bit; `factor` a host scalar.
  void attention(Tensor q, Tensor k, Tensor v, Tensor factor, Tensor out);

  /// Every way cuDNN names, its favourite first; none when the target cannot compute the graph.
  Result<std::vector<CudnnConfig>> configs(const CudnnTarget& target) const;

  struct Bound {
    std::size_t bytes = 0;  // of device memory; 0 for a host scalar
  };
  std::span<const Bound> bound() const { return bound_; }

 private:
  Tensor append(cudnnDataType_t type, const Extents& extents, const Extents& strides, bool is_between, bool on_host);
  void add_operation(CudnnDescriptor what, CudnnDescriptor operation, std::string_view name);
  std::vector<CudnnDescriptor> tensors_;
  std::vector<CudnnDescriptor> parts_;  // what operations refer to
  std::vector<CudnnDescriptor> operations_;
  std::vector<Bound> bound_;
};

}  // namespace octavo::device::cuda
