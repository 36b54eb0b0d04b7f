#include "ops/onednn_weight.h"

#include "ops/matmul/matmul_kernels.h"
#include "ops/parallel_rows.h"

namespace octavo::ops {
namespace {

constexpr std::int64_t kElementsPerTask = 1 << 16;  // some 4 microseconds, what waking a thread costs

void widen(const DeviceTraits& traits, DType from_dtype, const void* from, float* to, std::int64_t count) {
  device::parallel_for(traits, count, kElementsPerTask,
                       [&](std::int64_t begin, std::int64_t end) { widen_elements(from_dtype, from, to, begin, end); });
}

}  // namespace

std::size_t OnednnWeight::scratch_bytes() const {
  const bool widens = stored_ != DType::kF32 && layout_.data_type() == dnnl::memory::data_type::f32;
  return widens ? align_scratch(layout_.get_size()) : 0;
}

const void* OnednnWeight::ready(const DeviceTraits& traits, void* scratch) const {
  if (scratch_bytes() == 0) return buffer_.data();
  const auto count = static_cast<std::int64_t>(layout_.get_size() / sizeof(float));
  widen(traits, stored_, buffer_.data(), static_cast<float*>(scratch), count);
  return scratch;
}

Result<std::shared_ptr<const OnednnWeight>> pack_for_onednn(device::Device& device, const TensorView& plain,
                                                            const dnnl::memory::desc& plain_layout,
                                                            const dnnl::memory::desc& layout) {
  const DeviceTraits& traits = device.traits();
  prepare_onednn(traits);
  limit_vectors(traits);
  OCTAVO_ASSIGN_OR_RETURN(device::Buffer plain_f32, device.allocate(plain_layout.get_size()));
  widen(traits, plain.dtype(), plain.data(), static_cast<float*>(plain_f32.data()), plain.element_count());
  OCTAVO_ASSIGN_OR_RETURN(device::Buffer blocked, device.allocate(layout.get_size()));
  dnnl::memory from(plain_layout, onednn_engine(), plain_f32.data());
  dnnl::memory to(layout, onednn_engine(), blocked.data());
  dnnl::stream stream(onednn_engine());
  dnnl::reorder(from, to).execute(stream, from, to);  // zeroes the padding
  stream.wait();
  if (layout.data_type() == dnnl::memory::data_type::bf16) {
    return std::make_shared<const OnednnWeight>(layout, DType::kBF16, std::move(blocked));
  }
  if (plain.dtype() == DType::kF32) {
    return std::make_shared<const OnednnWeight>(layout, DType::kF32, std::move(blocked));
  }
  // Back to the file's 16 bits in the blocked order: exact, because that is where the values came from.
  const auto count = static_cast<std::int64_t>(layout.get_size() / sizeof(float));
  OCTAVO_ASSIGN_OR_RETURN(device::Buffer narrow, device.allocate(static_cast<std::size_t>(count) * 2));
  const auto* wide = static_cast<const float*>(blocked.data());
  device::parallel_for(traits, count, kElementsPerTask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      if (plain.dtype() == DType::kF16) {
        static_cast<Float16*>(narrow.data())[i] = to_float16(wide[i]);
      } else {
        static_cast<BFloat16*>(narrow.data())[i] = to_bfloat16(wide[i]);
      }
    }
  });
  return std::make_shared<const OnednnWeight>(layout, plain.dtype(), std::move(narrow));
}

}  // namespace octavo::ops
