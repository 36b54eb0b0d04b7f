// scaled_matmul on the GPU: its rows and how its weights get there.
#include <mutex>

#include "ops/cuda/cuda_rows.h"
#include "ops/matmul/cuda/cuda_product.h"
#include "ops/matmul/cuda/product_kernels.h"

namespace octavo::ops {
namespace {

CudaProduct product_of(const ScaledMatmulArgs& args) {
  CudaProduct product;
  product.x = args.x;
  product.weight = args.weight.quantized;
  product.one_weight_scale = args.weight.one_scale;
  if (const auto* weight = dynamic_cast<const CudaWeight*>(args.weight.packed.get())) {
    if (weight->joint_for != nullptr && args.x.dequant_scale.data() == weight->joint_for) {
      product.joint_scale = static_cast<const float*>(weight->joint_scales.data());
      product.ones = static_cast<const float*>(weight->ones->data());
    }
  }
  product.outliers = args.outliers;
  product.outlier_weight = args.weight.outlier_weight;
  product.epilogue = args.epilogue;
  product.out = args.out;
  if (args.out_quant_scale.defined()) product.out_quant_scale = args.out_quant_scale.f32();
  return product;
}

CudaProduct widened_product_of(const ScaledMatmulArgs& args) {
  CudaProduct product = product_of(args);
  product.widens_codes = true;
  return product;
}

/// Scales of rows that all are 1, shared by every weight of the process.
Result<std::shared_ptr<const device::Buffer>> shared_ones(device::Device& device, device::Stream& stream) {
  static std::mutex mutex;
  static std::weak_ptr<const device::Buffer> shared;
  const std::lock_guard lock(mutex);
  if (auto ones = shared.lock()) return ones;
  const std::vector<float> values(kMostOnes, 1.0f);
  OCTAVO_ASSIGN_OR_RETURN(device::Buffer buffer, device.allocate(values.size() * sizeof(float)));
  device.copy_to_device(stream, buffer.data(), values.data(), values.size() * sizeof(float));
  stream.synchronize();
  auto ones = std::make_shared<const device::Buffer>(std::move(buffer));
  shared = ones;
  return std::shared_ptr<const device::Buffer>(ones);
}

Result<ScaledWeight> pack(device::Device& device, const QuantizedView& quantized, const TensorView& outlier_weight,
                          const ScaledActivations& activations) {
  const auto stream = device.create_stream();
  const cudaStream_t handle = static_cast<device::cuda::CudaStream&>(*stream).handle();
  auto weight = std::make_shared<CudaWeight>();
  ScaledWeight packed;
  packed.quantized = quantized;
  OCTAVO_ASSIGN_OR_RETURN(weight->elements, copy_to_gpu(device, *stream, quantized.codes, quantized.codes.dtype()));
  packed.quantized.codes = TensorView(weight->elements.data(), quantized.codes.dtype(), quantized.codes.shape());
  OCTAVO_ASSIGN_OR_RETURN(device::Buffer scales, copy_to_gpu(device, *stream, quantized.dequant_scale, DType::kF32));
  const std::int64_t width = quantized.rows();
  const auto row_bytes = static_cast<std::size_t>(width) * sizeof(float);
  packed.one_scale = quantized.grain == ScaleGrain::kTensor;
  if (packed.one_scale) {  // products read a scale for every row
    OCTAVO_ASSIGN_OR_RETURN(weight->scales, device.allocate(row_bytes));
    scale_vector(handle, static_cast<const float*>(scales.data()), 0, nullptr,
                 static_cast<float*>(weight->scales.data()), width);
    packed.quantized.grain = ScaleGrain::kRow;
    packed.quantized.dequant_scale = TensorView(weight->scales.data(), DType::kF32, Shape{width});
  } else {
    weight->scales = std::move(scales);
    packed.quantized.dequant_scale = TensorView(weight->scales.data(), DType::kF32, quantized.dequant_scale.shape());
  }
  device::Buffer by;
  if (activations.static_scale.defined() && packed.quantized.grain == ScaleGrain::kRow) {
    OCTAVO_ASSIGN_OR_RETURN(by, copy_to_gpu(device, *stream, activations.static_scale, DType::kF32));
    OCTAVO_ASSIGN_OR_RETURN(weight->joint_scales, device.allocate(row_bytes));
    OCTAVO_ASSIGN_OR_RETURN(weight->ones, shared_ones(device, *stream));
    scale_vector(handle, static_cast<const float*>(weight->scales.data()), 1, static_cast<const float*>(by.data()),
                 static_cast<float*>(weight->joint_scales.data()), width);
    weight->joint_for = activations.static_scale.data();
  }
  if (outlier_weight.defined()) {
    OCTAVO_ASSIGN_OR_RETURN(weight->outliers, copy_to_gpu(device, *stream, outlier_weight, DType::kBF16));
    packed.outlier_weight = TensorView(weight->outliers.data(), DType::kBF16, outlier_weight.shape());
  }
  stream->synchronize();  // before temporaries go
  packed.packed = std::move(weight);
  return packed;
}

}  // namespace

void add_scaled_matmul_cuda_rows() {
  static constexpr KernelRow<ScaledMatmulArgs> kRows[] = {
      {.name = "few_rows",
       .device = DeviceKind::kCuda,
       .supports =
           [](const ScaledMatmulArgs& args, const DeviceTraits& traits) {
             return few_rows_supports(product_of(args), traits.compute_capability);
           },
       .scratch_bytes = [](const ExecutionContext&,
                           const ScaledMatmulArgs& args) { return few_rows_scratch_bytes(product_of(args)); },
       .run = [](ExecutionContext& context, const ScaledMatmulArgs& args,
                 void* scratch) { run_few_rows(context, product_of(args), scratch); }},
      {.name = "cublaslt",
       .device = DeviceKind::kCuda,
       .supports = nullptr,
       .scratch_bytes =
           [](const ExecutionContext& context, const ScaledMatmulArgs& args) {
             return cuda_product_scratch_bytes(product_of(args), context.traits().compute_capability);
           },
       .run = [](ExecutionContext& context, const ScaledMatmulArgs& args,
                 void* scratch) { run_cuda_product(context, product_of(args), scratch); }},
      // Never the first that supports anything: `--kernel scaled_matmul=cublaslt_widened` and tests ask for it, to tell
      // what the tensor cores' short sums do from everything else.
      {.name = "cublaslt_widened",
       .device = DeviceKind::kCuda,
       .supports = nullptr,
       .scratch_bytes =
           [](const ExecutionContext& context, const ScaledMatmulArgs& args) {
             return cuda_product_scratch_bytes(widened_product_of(args), context.traits().compute_capability);
           },
       .run = [](ExecutionContext& context, const ScaledMatmulArgs& args,
                 void* scratch) { run_cuda_product(context, widened_product_of(args), scratch); }}};
  scaled_matmul_table().add_rows(kRows);
  set_scaled_matmul_packer(pack);
}

}  // namespace octavo::ops
