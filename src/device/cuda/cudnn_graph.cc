#include "device/cuda/cudnn_graph.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "base/check.h"

namespace octavo::device::cuda {
namespace {

std::string last_error() {
  std::array<char, 512> text{};
  cudnnGetLastErrorString(text.data(), text.size());
  return text.data();
}

/// Throws CheckFailure with cuDNN's own words.
void require(cudnnStatus_t status, std::string_view what) {
  OCTAVO_CHECK(status == CUDNN_STATUS_SUCCESS, "cuDNN, {}: {} ({})", what, cudnnGetErrorString(status), last_error());
}
void require(const Status& status) { OCTAVO_CHECK(status.ok(), "{}", status.to_string()); }

void read_notes(const CudnnDescriptor& engine, CudnnConfig& config) {
  std::array<cudnnBackendNumericalNote_t, CUDNN_NUMERICAL_NOTE_TYPE_COUNT> notes{};
  std::int64_t count = 0;
  require(cudnnBackendGetAttribute(engine.get(), CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                   static_cast<std::int64_t>(notes.size()), &count, notes.data()),
          "notes of an engine");
  for (std::int64_t i = 0; i < count; ++i) {
    switch (notes[static_cast<std::size_t>(i)]) {
      case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC:
        config.deterministic = false;
        break;
      case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:
      case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS:
      case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION:
      case CUDNN_NUMERICAL_NOTE_FFT:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD:
        config.exact_products = false;
        break;
      default:
        break;
    }
  }
  std::array<cudnnBackendBehaviorNote_t, CUDNN_BEHAVIOR_NOTE_TYPE_COUNT> behaviours{};
  require(cudnnBackendGetAttribute(engine.get(), CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                                   static_cast<std::int64_t>(behaviours.size()), &count, behaviours.data()),
          "notes of an engine");
  for (std::int64_t i = 0; i < count; ++i) {
    if (behaviours[static_cast<std::size_t>(i)] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) config.compiled = true;
  }
}

std::size_t size_of(cudnnDataType_t type) {
  switch (type) {
    case CUDNN_DATA_FLOAT:
      return 4;
    case CUDNN_DATA_BFLOAT16:
      return 2;
    case CUDNN_DATA_FP8_E4M3:
      return 1;
    default:
      break;
  }
  OCTAVO_CHECK(false, "cuDNN's type {} is none of this program's", static_cast<int>(type));
}

}  // namespace

CudnnDescriptor::CudnnDescriptor(cudnnBackendDescriptorType_t type) {
  require(cudnnBackendCreateDescriptor(type, &descriptor_), "a descriptor");
}

CudnnDescriptor::~CudnnDescriptor() {
  if (descriptor_ != nullptr) cudnnBackendDestroyDescriptor(descriptor_);
}

void CudnnDescriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count,
                          const void* values) {
  const cudnnStatus_t status = cudnnBackendSetAttribute(descriptor_, name, type, count, values);
  OCTAVO_CHECK(status == CUDNN_STATUS_SUCCESS, "cuDNN, attribute {}: {} ({})", static_cast<int>(name),
               cudnnGetErrorString(status), last_error());
}

Status CudnnDescriptor::finalize(std::string_view what) {
  const cudnnStatus_t status = cudnnBackendFinalize(descriptor_);
  if (status == CUDNN_STATUS_SUCCESS) return {};
  return failed_precondition("cuDNN", fmt::format("{}: {} ({})", what, cudnnGetErrorString(status), last_error()));
}

Result<CudnnTarget> CudnnTarget::from_properties(const std::string& json) {
  CudnnTarget target;
  target.properties_ = CudnnDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  target.properties_.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                         static_cast<std::int64_t>(json.size()), json.data());
  OCTAVO_RETURN_IF_ERROR(target.properties_.finalize("device properties"));
  return target;
}

CudnnPlan::CudnnPlan(CudnnDescriptor plan) : plan_(std::move(plan)) {
  std::int64_t bytes = 0, count = 0;
  require(cudnnBackendGetAttribute(plan_.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count,
                                   &bytes),
          "workspace of a plan");
  workspace_bytes_ = static_cast<std::size_t>(bytes);
}

CudnnDescriptor CudnnPlan::begin(const CudnnTarget& target) {
  CudnnDescriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  if (target.handle() != nullptr) {
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, target.handle());
  } else {
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, target.properties());
  }
  return plan;
}

Result<std::shared_ptr<const CudnnPlan>> CudnnPlan::build(const CudnnTarget& target, const CudnnConfig& config) {
  CudnnDescriptor plan = begin(target);
  plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config.config);
  OCTAVO_RETURN_IF_ERROR(plan.finalize("plan"));
  return std::shared_ptr<const CudnnPlan>(new CudnnPlan(std::move(plan)));
}

Result<std::shared_ptr<const CudnnPlan>> CudnnPlan::from_json(const CudnnTarget& target, const std::string& json) {
  CudnnDescriptor plan = begin(target);
  // A file of another version may be refused here already, and is no error of the program.
  if (cudnnBackendSetAttribute(plan.get(), CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                               static_cast<std::int64_t>(json.size()), json.data()) != CUDNN_STATUS_SUCCESS) {
    return failed_precondition("cuDNN", fmt::format("a stored plan: {}", last_error()));
  }
  OCTAVO_RETURN_IF_ERROR(plan.finalize("a stored plan"));
  return std::shared_ptr<const CudnnPlan>(new CudnnPlan(std::move(plan)));
}

Result<std::string> CudnnPlan::json() const {
  std::int64_t size = 0;
  constexpr auto kName = CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION;
  if (cudnnBackendGetAttribute(plan_.get(), kName, CUDNN_TYPE_CHAR, 0, &size, nullptr) != CUDNN_STATUS_SUCCESS) {
    return failed_precondition("cuDNN", fmt::format("a plan as text: {}", last_error()));
  }
  std::string text(static_cast<std::size_t>(size), '\0');
  require(cudnnBackendGetAttribute(plan_.get(), kName, CUDNN_TYPE_CHAR, size, &size, text.data()), "a plan as text");
  text.resize(static_cast<std::size_t>(size));
  return text;
}

void CudnnPlan::run(cudnnHandle_t handle, std::span<void* const> pointers, void* workspace) const {
  constexpr std::size_t kMost = 16;
  OCTAVO_CHECK(pointers.size() <= kMost, "{} tensors of a graph", pointers.size());
  std::array<std::int64_t, kMost> ids{};
  for (std::size_t i = 0; i < pointers.size(); ++i) ids[i] = static_cast<std::int64_t>(i) + 1;
  const auto count = static_cast<std::int64_t>(pointers.size());
  CudnnDescriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, ids.data());
  pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, pointers.data());
  pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, workspace);
  require(pack.finalize("pointers"));
  require(cudnnBackendExecute(handle, plan_.get(), pack.get()), "a plan's run");
}

CudnnGraph::Tensor CudnnGraph::append(cudnnDataType_t type, const Extents& extents, const Extents& strides,
                                      bool is_between, bool on_host) {
  CudnnDescriptor tensor(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  // Bound tensors are numbered from 1 in the order of their declaration; the others from far behind them.
  constexpr std::int64_t kBetweenIds = 1000;
  const std::int64_t id = is_between ? kBetweenIds + static_cast<std::int64_t>(tensors_.size())
                                     : static_cast<std::int64_t>(bound_.size()) + 1;
  const std::int64_t alignment = on_host ? 4 : 16;
  tensor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, type);
  tensor.set(CUDNN_ATTR_TENSOR_DIMENSIONS, extents);
  tensor.set(CUDNN_ATTR_TENSOR_STRIDES, strides);
  tensor.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, id);
  tensor.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, alignment);
  if (is_between) tensor.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, true);
  if (on_host) tensor.set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, true);
  require(tensor.finalize("tensor"));
  if (!is_between) {
    std::int64_t last = 0;
    for (std::size_t i = 0; i < extents.size(); ++i) last += (extents[i] - 1) * strides[i];
    bound_.push_back({on_host ? 0 : (static_cast<std::size_t>(last) + 1) * size_of(type)});
  }
  tensors_.push_back(std::move(tensor));
  return tensors_.size() - 1;
}

CudnnGraph::Tensor CudnnGraph::tensor(cudnnDataType_t type, const Extents& extents, const Extents& strides) {
  return append(type, extents, strides, false, false);
}

CudnnGraph::Tensor CudnnGraph::host_scalar(const Extents& extents) {
  return append(CUDNN_DATA_FLOAT, extents, Extents(extents.size(), 1), false, true);
}

CudnnGraph::Tensor CudnnGraph::between(const Extents& extents) {
  // Channels last, as everything around it.
  Extents strides(extents.size(), 1);
  if (extents.size() == 4) {
    strides = {extents[1] * extents[2] * extents[3], 1, extents[1] * extents[3], extents[1]};
  }
  return append(CUDNN_DATA_FLOAT, extents, strides, true, false);
}

CudnnGraph::Tensor CudnnGraph::between_matrices(cudnnDataType_t type, const Extents& extents) {
  Extents strides(extents.size(), 1);
  for (std::size_t i = extents.size() - 1; i > 0; --i) strides[i - 1] = strides[i] * extents[i];
  return append(type, extents, strides, true, false);
}

void CudnnGraph::add_operation(CudnnDescriptor what, CudnnDescriptor operation, std::string_view name) {
  require(operation.finalize(name));
  parts_.push_back(std::move(what));
  operations_.push_back(std::move(operation));
}

void CudnnGraph::matmul(Tensor a, Tensor b, Tensor product) {
  CudnnDescriptor what(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
  what.set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
  require(what.finalize("matmul"));
  CudnnDescriptor operation(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_MATMUL_DESC, what);
  operation.set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, tensors_[a]);
  operation.set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, tensors_[b]);
  operation.set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, tensors_[product]);
  add_operation(std::move(what), std::move(operation), "matmul");
}

void CudnnGraph::reduce(cudnnReduceTensorOp_t reduction, Tensor x, Tensor result) {
  CudnnDescriptor what(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
  what.set(CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, reduction);
  what.set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
  require(what.finalize("reduction"));
  CudnnDescriptor operation(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, what);
  operation.set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, tensors_[x]);
  operation.set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, tensors_[result]);
  add_operation(std::move(what), std::move(operation), "reduction");
}

void CudnnGraph::convolution(Tensor x, Tensor w, Tensor y, std::int64_t stride, Padding rows, Padding columns) {
  CudnnDescriptor what(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  const std::int64_t spatial = 2;
  const std::array<std::int64_t, 2> strides{stride, stride}, dilations{1, 1}, before{rows.before, columns.before},
      after{rows.after, columns.after};
  what.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
  what.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, CUDNN_CROSS_CORRELATION);
  what.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, spatial);
  what.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, strides);
  what.set(CUDNN_ATTR_CONVOLUTION_DILATIONS, dilations);
  what.set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, before);
  what.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, after);
  require(what.finalize("convolution"));
  CudnnDescriptor operation(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
  const float one = 1, zero = 0;
  operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, one);
  operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, zero);
  operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, what);
  operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, tensors_[x]);
  operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, tensors_[w]);
  operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, tensors_[y]);
  add_operation(std::move(what), std::move(operation), "convolution");
}

void CudnnGraph::pointwise(cudnnPointwiseMode_t mode, Tensor a, Tensor b, Tensor result) {
  CudnnDescriptor what(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  what.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, mode);
  what.set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
  require(what.finalize("pointwise"));
  CudnnDescriptor operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, what);
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, tensors_[a]);
  if (b != kNone) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, tensors_[b]);
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, tensors_[result]);
  add_operation(std::move(what), std::move(operation), "pointwise");
}

void CudnnGraph::attention(Tensor q, Tensor k, Tensor v, Tensor factor, Tensor out) {
  CudnnDescriptor operation(CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, tensors_[q]);
  operation.set(CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, tensors_[k]);
  operation.set(CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, tensors_[v]);
  operation.set(CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, tensors_[factor]);
  operation.set(CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, tensors_[out]);
  require(operation.finalize("attention"));
  operations_.push_back(std::move(operation));
}

Result<std::vector<CudnnConfig>> CudnnGraph::configs(const CudnnTarget& target) const {
  std::vector<cudnnBackendDescriptor_t> operations;
  operations.reserve(operations_.size());
  for (const CudnnDescriptor& operation : operations_) operations.push_back(operation.get());
  CudnnDescriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  if (target.handle() != nullptr) {
    graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, target.handle());
  }
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<std::int64_t>(operations.size()),
            operations.data());
  OCTAVO_RETURN_IF_ERROR(graph.finalize("graph"));

  std::vector<CudnnConfig> result;
  for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
    CudnnDescriptor heuristic(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    heuristic.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, mode);
    if (target.handle() == nullptr) heuristic.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, target.properties());
    if (!heuristic.finalize("heuristic").ok()) continue;
    std::int64_t count = 0;
    require(cudnnBackendGetAttribute(heuristic.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0,
                                     &count, nullptr),
            "number of configs");
    std::vector<CudnnConfig> named(static_cast<std::size_t>(count));
    std::vector<cudnnBackendDescriptor_t> handles(named.size());
    for (std::size_t i = 0; i < named.size(); ++i) {
      named[i].config = CudnnDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
      handles[i] = named[i].config.get();
    }
    require(cudnnBackendGetAttribute(heuristic.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                     count, &count, handles.data()),
            "configs");
    named.resize(static_cast<std::size_t>(count));
    for (CudnnConfig& config : named) {
      CudnnDescriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
      cudnnBackendDescriptor_t raw = engine.get();
      std::int64_t one = 0;
      require(cudnnBackendGetAttribute(config.config.get(), CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                       1, &one, &raw),
              "engine of a config");
      read_notes(engine, config);
      result.push_back(std::move(config));
    }
  }
  return result;
}

}  // namespace octavo::device::cuda
