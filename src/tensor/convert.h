// Arrays of elements from one storage type to another.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace octavo {

/// True for the types that hold real numbers: f32, f16, bf16, e4m3, e5m2.
bool is_floating(DType dtype);

/// Copies `count` elements, rounding each to nearest (float8.h for the FP8 types, which saturate). Equal types copy the
/// bytes. `from` may lie at any address; `to` is aligned for its type. Both types are floating, or equal.
void convert_elements(const std::byte* from, DType from_dtype, std::byte* to, DType to_dtype, std::int64_t count);

}  // namespace octavo
