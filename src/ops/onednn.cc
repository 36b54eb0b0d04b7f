#include "ops/onednn.h"

#include "base/check.h"

namespace octavo::ops {

const dnnl::engine& onednn_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

void prepare_onednn(const device::DeviceTraits& traits) {
  static std::once_flag once;
  std::call_once(once, [&traits] {
    // Never AMX: with oneDNN 2.6 the decoder's convolutions take 47 s there instead of 0.15, and a row's sums change
    // with the number of rows. Refused only after a first primitive or on other architectures, where nothing is to be
    // lowered.
    dnnl_set_max_cpu_isa(traits.has_avx512_bf16 ? dnnl_cpu_isa_avx512_core_bf16
                         : traits.has_avx512    ? dnnl_cpu_isa_avx512_core
                         : traits.has_avx2      ? dnnl_cpu_isa_avx2
                                                : dnnl_cpu_isa_sse41);
  });
  device::use_threads_of(traits);
}

dnnl::memory::data_type onednn_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return dnnl::memory::data_type::f32;
    case DType::kF16:
      return dnnl::memory::data_type::f16;
    case DType::kBF16:
      return dnnl::memory::data_type::bf16;
    default:
      break;
  }
  OCTAVO_CHECK(false, "{} has no oneDNN type here", dtype_name(dtype));
}

OnednnPrimitive::OnednnPrimitive(dnnl::primitive primitive, std::vector<Argument> arguments,
                                 const dnnl::memory::desc& scratchpad)
    : primitive_(std::move(primitive)), arguments_(std::move(arguments)), scratchpad_bytes_(scratchpad.get_size()) {
  OCTAVO_CHECK(arguments_.size() <= kMaxArguments, "{} oneDNN arguments", arguments_.size());
  arguments_.push_back({DNNL_ARG_SCRATCHPAD, scratchpad});
  free_slots_.reserve(16);
  give_slot(take_slot());  // the first execution finds one
}

std::unique_ptr<OnednnPrimitive::Slot> OnednnPrimitive::take_slot() {
  {
    const std::lock_guard lock(mutex_);
    if (!free_slots_.empty()) {
      auto slot = std::move(free_slots_.back());
      free_slots_.pop_back();
      return slot;
    }
  }
  auto slot = std::make_unique<Slot>();
  slot->stream = dnnl::stream(onednn_engine());
  for (std::size_t i = 0; i < arguments_.size(); ++i) {
    slot->memories.emplace_back(arguments_[i].layout, onednn_engine(), nullptr);
    slot->arguments[i] = {arguments_[i].index, slot->memories.back().get()};
  }
  return slot;
}

void OnednnPrimitive::give_slot(std::unique_ptr<Slot> slot) {
  const std::lock_guard lock(mutex_);
  free_slots_.push_back(std::move(slot));
}

void OnednnPrimitive::execute(std::span<void* const> pointers) {
  OCTAVO_CHECK(pointers.size() == arguments_.size(), "{} pointers for {} oneDNN arguments", pointers.size(),
               arguments_.size());
  auto slot = take_slot();
  for (std::size_t i = 0; i < pointers.size(); ++i) slot->memories[i].set_data_handle(pointers[i]);
  const dnnl_status_t status = dnnl_primitive_execute(primitive_.get(), slot->stream.get(),
                                                      static_cast<int>(pointers.size()), slot->arguments.data());
  give_slot(std::move(slot));
  if (status != dnnl_success) {
    throw device::DeviceError(fmt::format("oneDNN failed to execute: {}", static_cast<int>(status)));
  }
}

}  // namespace octavo::ops
