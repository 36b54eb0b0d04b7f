// matmul by our own tile product, for processors whose library product is not the same for every row (AVX2).
//
// Mapping: weights are rearranged once into panels of 64 columns, [panel][K][64], and stay as narrow as they are; a
// call widens them
//   into scratch, then each task multiplies 48 rows of x with every panel and finishes each 48 x 64 tile (bias,
//   activation, gate, residual) while it is in the first-level cache.
// Order: each output is summed in order of k, so a row does not depend on the others.
// FLOPs 2 M N K; bytes as matmul_onednn.cc. Measured on one core with OCTAVO_MAX_ISA=avx2 (AMD EPYC of family 25, model
//   17, 2026-11-24): 91 to 111 GFLOP/s of a peak near 116, 81 to 98 % of oneDNN's bare product; 87 with GELU.
#include "ops/matmul/matmul_kernels.h"
#include "ops/parallel_rows.h"
#include "ops/rows.h"

namespace octavo::ops {
namespace {

class PanelWeight final : public PackedWeight {
 public:
  PanelWeight(DType stored, std::int64_t element_count, device::Buffer buffer)
      : stored_(stored), element_count_(element_count), buffer_(std::move(buffer)) {}
  std::size_t byte_count() const override { return buffer_.byte_count(); }
  DType stored() const { return stored_; }
  std::int64_t element_count() const { return element_count_; }
  const void* data() const { return buffer_.data(); }

 private:
  DType stored_;
  std::int64_t element_count_;
  device::Buffer buffer_;
};

const PanelWeight* panel_weight(const MatmulArgs& args) {
  return dynamic_cast<const PanelWeight*>(args.weight.packed.get());
}

}  // namespace

bool matmul_panels_supports(const MatmulArgs& args, const DeviceTraits& traits) {
  return traits.has_avx2 && args.x.dtype() == DType::kF32 && panel_weight(args) != nullptr &&
         has_plain_epilogue(args.epilogue);
}

std::size_t matmul_panels_scratch_bytes(const ExecutionContext&, const MatmulArgs& args) {
  const PanelWeight& weight = *panel_weight(args);
  return weight.stored() == DType::kF32 ? 0 : static_cast<std::size_t>(weight.element_count()) * sizeof(float);
}

void matmul_panels(ExecutionContext& context, const MatmulArgs& args, void* scratch) {
  const DeviceTraits& traits = context.traits();
  limit_vectors(traits);
  const PanelWeight& weight = *panel_weight(args);
  const auto* panels = static_cast<const float*>(weight.data());
  if (weight.stored() != DType::kF32) {
    auto* widened = static_cast<float*>(scratch);
    constexpr std::int64_t kGrain = 1 << 16;
    device::parallel_for(traits, weight.element_count(), kGrain, [&](std::int64_t begin, std::int64_t end) {
      widen_elements(weight.stored(), weight.data(), DType::kF32, widened, begin, end);
    });
    panels = widened;
  }
  const std::int64_t blocks = (args.x.dim(-2) + kPanelRows - 1) / kPanelRows;
  const std::int64_t batch = args.x.rank() == 3 ? args.x.dim(0) : 1;
  device::parallel_for(traits, batch * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) panel_product(args, panels, block);
  });
}

Result<std::shared_ptr<const PackedWeight>> pack_panels_weight(device::Device& device, const TensorView& plain) {
  const std::int64_t width = plain.dim(0);
  const std::int64_t inner = plain.dim(1);
  const std::int64_t count = (width + kPanelColumns - 1) / kPanelColumns * kPanelColumns * inner;
  OCTAVO_ASSIGN_OR_RETURN(device::Buffer buffer,
                          device.allocate(static_cast<std::size_t>(count) * dtype_size(plain.dtype())));
  const Row panels(TensorView(buffer.data(), plain.dtype(), Shape{count}), {});
  const std::int64_t panel_count = (width + kPanelColumns - 1) / kPanelColumns;
  device::parallel_for(device.traits(), panel_count, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin * kPanelColumns; n < end * kPanelColumns; ++n) {
      const std::int64_t first = n / kPanelColumns * kPanelColumns * inner + n % kPanelColumns;
      for (std::int64_t k = 0; k < inner; ++k) {
        panels.put_back(first + k * kPanelColumns, n < width ? Row(plain, {n})[k] : 0.0f);
      }
    }
  });
  std::shared_ptr<const PackedWeight> packed =
      std::make_shared<const PanelWeight>(plain.dtype(), count, std::move(buffer));
  return packed;
}

}  // namespace octavo::ops
