// matmul on the GPU: its rows and how its weights get there.
#include "ops/cuda/cuda_rows.h"
#include "ops/matmul/cuda/cuda_product.h"
#include "ops/matmul/cuda/product_kernels.h"

namespace octavo::ops {
namespace {

CudaProduct product_of(const MatmulArgs& args) {
  CudaProduct product;
  product.x.codes = args.x;
  product.weight.codes = args.weight.plain;
  product.epilogue = args.epilogue;
  product.out = args.out;
  return product;
}

bool supports_few_rows(const MatmulArgs& args, const DeviceTraits& traits) {
  return few_rows_supports(product_of(args), traits.compute_capability);
}

Result<MatmulWeight> pack(device::Device& device, const TensorView& plain, DType activation_dtype) {
  // bf16 products round weights to bf16 anyway; f32 products keep every bit that the file has.
  const DType dtype = activation_dtype == DType::kBF16 ? DType::kBF16 : plain.dtype();
  auto weight = std::make_shared<CudaWeight>();
  const auto stream = device.create_stream();
  OCTAVO_ASSIGN_OR_RETURN(weight->elements, copy_to_gpu(device, *stream, plain, dtype));
  stream->synchronize();
  MatmulWeight packed;
  packed.plain = TensorView(weight->elements.data(), dtype, plain.shape());
  packed.packed = std::move(weight);
  packed.packed_for = activation_dtype;
  return packed;
}

}  // namespace

void add_matmul_cuda_rows() {
  static constexpr KernelRow<MatmulArgs> kRows[] = {
      {.name = "few_rows",
       .device = DeviceKind::kCuda,
       .supports = supports_few_rows,
       .scratch_bytes = [](const ExecutionContext&,
                           const MatmulArgs& args) { return few_rows_scratch_bytes(product_of(args)); },
       .run = [](ExecutionContext& context, const MatmulArgs& args,
                 void* scratch) { run_few_rows(context, product_of(args), scratch); }},
      {.name = "cublaslt",
       .device = DeviceKind::kCuda,
       .supports = nullptr,
       .scratch_bytes =
           [](const ExecutionContext& context, const MatmulArgs& args) {
             return cuda_product_scratch_bytes(product_of(args), context.traits().compute_capability);
           },
       .run = [](ExecutionContext& context, const MatmulArgs& args,
                 void* scratch) { run_cuda_product(context, product_of(args), scratch); }}};
  matmul_table().add_rows(kRows);
  set_matmul_packer(pack);
}

Result<device::Buffer> copy_to_gpu(device::Device& device, device::Stream& stream, const TensorView& from,
                                   DType dtype) {
  OCTAVO_CHECK(from.contiguous(), "a weight of {} is not contiguous", from.shape().to_string());
  const auto elements = static_cast<std::size_t>(from.element_count());
  OCTAVO_ASSIGN_OR_RETURN(device::Buffer buffer, device.allocate(elements * dtype_size(dtype)));
  const bool there = device::cuda::on_device(from.data());
  if (from.dtype() == dtype) {
    if (there) {
      device.copy_within(stream, buffer.data(), from.data(), from.byte_count());
    } else {
      device.copy_to_device(stream, buffer.data(), from.data(), from.byte_count());
    }
    return buffer;
  }
  device::Buffer uploaded;
  const void* data = from.data();
  if (!there) {
    OCTAVO_ASSIGN_OR_RETURN(uploaded, device.allocate(from.byte_count()));
    device.copy_to_device(stream, uploaded.data(), from.data(), from.byte_count());
    data = uploaded.data();
  }
  ConvertWork work;
  work.from = data;
  work.from_dtype = from.dtype();
  work.from_rows = {from.dim(0), 0, from.dim(1)};
  work.rows = from.dim(0);
  work.inner = work.to_stride = from.dim(1);
  work.to = buffer.data();
  work.to_dtype = dtype;
  convert_rows(static_cast<device::cuda::CudaStream&>(stream).handle(), work);
  stream.synchronize();  // before `uploaded` goes
  return buffer;
}

}  // namespace octavo::ops
