// Any bytes as a safetensors file: parsing ends in a Status or in tensors that lie inside the bytes without overlap.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "tensor/tensor.h"
#include "weights/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto header = octavo::weights::parse_safetensors(bytes, "fuzz");
  if (!header.ok()) {
    if (header.status().message().empty()) std::abort();
    return 0;
  }
  std::size_t covered = header->data_begin;
  for (const auto& [name, info] : header->tensors) {
    const auto tensor = bytes.subspan(header->data_begin).subspan(info.offset, info.byte_count);
    covered += tensor.size();
    // Strides and counts of any accepted shape are defined (the undefined-behaviour sanitizer watches).
    const octavo::TensorView view(static_cast<const void*>(tensor.data()), octavo::DType::kI8, info.shape);
    if (view.element_count() < 0 || static_cast<std::size_t>(view.element_count()) > tensor.size()) std::abort();
    volatile std::uint8_t sink = 0;
    for (const std::byte byte : tensor) sink = sink ^ static_cast<std::uint8_t>(byte);
  }
  if (covered != size) std::abort();  // the tensors tile the file
  return 0;
}
