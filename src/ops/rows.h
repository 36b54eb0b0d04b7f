// Row: the innermost axis of a tensor at fixed outer indices, seen as float whatever its dtype. Reference kernels
// and tests are written with it; fast kernels convert whole rows at once instead.
#pragma once

#include <cmath>
#include <cstddef>
#include <initializer_list>

#include "tensor/quantized.h"
#include "tensor/tensor.h"

namespace octavo::ops {

/// f32, f16 or bf16, or codes of 8 bits as the numbers they are without a scale; valid while the tensor's memory is.
class Row {
 public:
  /// `outer` has one index for each axis but the last.
  Row(const TensorView& view, std::initializer_list<std::int64_t> outer)
      : data_(address(view, outer)), dtype_(view.dtype()) {}

  float operator[](std::int64_t i) const {
    switch (dtype_) {
      case DType::kF32:
        return static_cast<const float*>(data_)[i];
      case DType::kBF16:
        return to_float(static_cast<const BFloat16*>(data_)[i]);
      case DType::kF16:
        return to_float(static_cast<const Float16*>(data_)[i]);
      case DType::kE4M3:
        return to_float(static_cast<const Float8E4M3*>(data_)[i]);
      case DType::kE5M2:
        return to_float(static_cast<const Float8E5M2*>(data_)[i]);
      case DType::kI8:
        return static_cast<float>(static_cast<const std::int8_t*>(data_)[i]);
      default:
        break;
    }
    OCTAVO_CHECK(false, "{} cannot be read as float", dtype_name(dtype_));
  }

  /// Stores a value that came from an element of this type unchanged, codes that set() never makes included (-128 of
  /// i8, infinities of E5M2): for what is rearranged through float.
  void put_back(std::int64_t i, float value) const {
    if (dtype_ == DType::kI8) {
      static_cast<std::int8_t*>(data_)[i] = static_cast<std::int8_t>(value);
    } else if (dtype_ == DType::kE5M2 && std::isinf(value)) {
      static_cast<Float8E5M2*>(data_)[i] = Float8E5M2{static_cast<std::uint8_t>(value < 0 ? 0xFC : 0x7C)};
    } else {
      set(i, value);
    }
  }
  /// Rounds to nearest, ties to even; codes saturate.
  void set(std::int64_t i, float value) const {
    switch (dtype_) {
      case DType::kF32:
        static_cast<float*>(data_)[i] = value;
        return;
      case DType::kBF16:
        static_cast<BFloat16*>(data_)[i] = to_bfloat16(value);
        return;
      case DType::kF16:
        static_cast<Float16*>(data_)[i] = to_float16(value);
        return;
      case DType::kE4M3:
        static_cast<Float8E4M3*>(data_)[i] = to_float8_e4m3(value);
        return;
      case DType::kE5M2:
        static_cast<Float8E5M2*>(data_)[i] = to_float8_e5m2(value);
        return;
      case DType::kI8:
        static_cast<std::int8_t*>(data_)[i] = to_int8_code(value);
        return;
      default:
        break;
    }
    OCTAVO_CHECK(false, "{} cannot be written as float", dtype_name(dtype_));
  }

  /// First element of the row, for kernels that know the dtype.
  static void* address(const TensorView& view, std::initializer_list<std::int64_t> outer) {
    OCTAVO_CHECK(static_cast<int>(outer.size()) + 1 == view.rank(), "{} indices for the rows of {}", outer.size(),
                 view.shape().to_string());
    std::int64_t offset = 0;
    int axis = 0;
    for (const std::int64_t index : outer) offset += index * view.stride(axis++);
    return static_cast<std::byte*>(view.data()) + offset * static_cast<std::int64_t>(dtype_size(view.dtype()));
  }

 private:
  void* data_;
  DType dtype_;
};

}  // namespace octavo::ops
