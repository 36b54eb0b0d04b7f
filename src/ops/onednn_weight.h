// Weights of products and convolutions in oneDNN's blocks, as narrow in memory as they came.
#pragma once

#include "ops/matmul/matmul.h"
#include "ops/onednn.h"

namespace octavo::ops {

/// A weight rearranged for one layout. Elements are stored in the layout's order but perhaps narrower than its type:
/// f32 layouts of 16-bit files, and codes of 8 bits, are widened, element by element, before each use. Padding is zero.
class OnednnWeight final : public PackedWeight {
 public:
  OnednnWeight(dnnl::memory::desc layout, DType stored, device::Buffer buffer)
      : layout_(std::move(layout)), stored_(stored), buffer_(std::move(buffer)) {}
  std::size_t byte_count() const override { return buffer_.byte_count(); }

  /// As primitives read it: f32 or bf16.
  const dnnl::memory::desc& layout() const { return layout_; }
  /// Bytes of scratch that ready() needs: 0 when the stored elements are what primitives read.
  std::size_t scratch_bytes() const;
  /// The weight as primitives read it: in place, or widened into `scratch`.
  const void* ready(const DeviceTraits& traits, void* scratch) const;

 private:
  dnnl::memory::desc layout_;
  DType stored_;
  device::Buffer buffer_;
};

/// `plain` is f32, f16, bf16 or codes of 8 bits, contiguous, arranged as `plain_layout` (f32, same shape as `layout`)
/// says. Codes stay codes; other elements are rounded to bf16 when `layout` is bf16, else kept exactly.
Result<std::shared_ptr<const OnednnWeight>> pack_for_onednn(device::Device& device, const TensorView& plain,
                                                            const dnnl::memory::desc& plain_layout,
                                                            const dnnl::memory::desc& layout);

/// Up to a multiple of 256, so that parts of one scratch buffer stay aligned.
inline std::size_t align_scratch(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace octavo::ops
