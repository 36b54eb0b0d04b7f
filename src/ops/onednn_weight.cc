#include "ops/onednn_weight.h"

#include "ops/matmul/matmul_kernels.h"
#include "ops/parallel_rows.h"
#include "ops/rows.h"

namespace octavo::ops {
namespace {

constexpr std::int64_t kElementsPerTask = 1 << 16;  // some 4 microseconds, what waking a thread costs

void widen(const DeviceTraits& traits, DType from_dtype, const void* from, DType to_dtype, void* to,
           std::int64_t count) {
  device::parallel_for(traits, count, kElementsPerTask, [&](std::int64_t begin, std::int64_t end) {
    widen_elements(from_dtype, from, to_dtype, to, begin, end);
  });
}

/// What primitives read: f32 or bf16.
DType read_type(const dnnl::memory::desc& layout) {
  return layout.data_type() == dnnl::memory::data_type::bf16 ? DType::kBF16 : DType::kF32;
}

}  // namespace

std::size_t OnednnWeight::scratch_bytes() const {
  return stored_ == read_type(layout_) ? 0 : align_scratch(layout_.get_size());
}

const void* OnednnWeight::ready(const DeviceTraits& traits, void* scratch) const {
  if (scratch_bytes() == 0) return buffer_.data();
  const DType type = read_type(layout_);
  widen(traits, stored_, buffer_.data(), type, scratch,
        static_cast<std::int64_t>(layout_.get_size() / dtype_size(type)));
  return scratch;
}

Result<std::shared_ptr<const OnednnWeight>> pack_for_onednn(device::Device& device, const TensorView& plain,
                                                            const dnnl::memory::desc& plain_layout,
                                                            const dnnl::memory::desc& layout) {
  const DeviceTraits& traits = device.traits();
  prepare_onednn(traits);
  limit_vectors(traits);
  OCTAVO_ASSIGN_OR_RETURN(device::Buffer plain_f32, device.allocate(plain_layout.get_size()));
  widen(traits, plain.dtype(), plain.data(), DType::kF32, plain_f32.data(), plain.element_count());
  OCTAVO_ASSIGN_OR_RETURN(device::Buffer blocked, device.allocate(layout.get_size()));
  dnnl::memory from(plain_layout, onednn_engine(), plain_f32.data());
  dnnl::memory to(layout, onednn_engine(), blocked.data());
  dnnl::stream stream(onednn_engine());
  dnnl::reorder(from, to).execute(stream, from, to);  // zeroes the padding
  stream.wait();
  const DType type = read_type(layout);
  const DType stored = is_quantized(plain.dtype()) || type == DType::kF32 ? plain.dtype() : DType::kBF16;
  if (stored == type) return std::make_shared<const OnednnWeight>(layout, stored, std::move(blocked));
  // Back to what it was in the blocked order: exact, because that is where the values came from.
  const auto count = static_cast<std::int64_t>(layout.get_size() / dtype_size(type));
  OCTAVO_ASSIGN_OR_RETURN(device::Buffer narrow, device.allocate(static_cast<std::size_t>(count) * dtype_size(stored)));
  const Row from_blocks(TensorView(blocked.data(), type, Shape{count}), {});
  const Row to_narrow(TensorView(narrow.data(), stored, Shape{count}), {});
  device::parallel_for(traits, count, kElementsPerTask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) to_narrow.put_back(i, from_blocks[i]);
  });
  return std::make_shared<const OnednnWeight>(layout, stored, std::move(narrow));
}

}  // namespace octavo::ops
