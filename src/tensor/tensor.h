// Shape and TensorView: what an op sees. Views never own memory; the arena, a weight file or a std::vector does.
//
// Letters used in shapes everywhere:
//   B  rows of the batch (with guidance: uncond and cond rows)   T  tokens     S  tokens of the joint sequence
//   D  model width                                               H  heads      C  channels
//   N  output features of a product      K  its inner size       height, width are spelled out
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "base/check.h"
#include "tensor/dtype.h"

namespace octavo {

/// Up to five extents, outermost first. A value.
class Shape {
 public:
  static constexpr int kMaxRank = 5;
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents) {
    OCTAVO_CHECK(extents.size() <= kMaxRank, "rank {} is over {}", extents.size(), kMaxRank);
    for (const std::int64_t extent : extents) extents_[rank_++] = extent;
  }
  int rank() const { return rank_; }
  /// Negative indices count from the end.
  std::int64_t operator[](int axis) const { return extents_[axis < 0 ? axis + rank_ : axis]; }
  std::int64_t element_count() const {
    std::int64_t count = 1;
    for (int axis = 0; axis < rank_; ++axis) count *= extents_[axis];
    return count;
  }
  bool operator==(const Shape& other) const = default;
  void append(std::int64_t extent) {
    OCTAVO_CHECK(rank_ < kMaxRank, "rank is already {}", kMaxRank);
    extents_[rank_++] = extent;
  }
  /// "[2, 256, 192]".
  std::string to_string() const;

 private:
  std::array<std::int64_t, kMaxRank> extents_{};
  int rank_ = 0;
};

/// A typed, shaped, strided window on memory of one device. Strides are in elements. The innermost axis is
/// always contiguous (stride 1): outer strides let an op write into a slice of a joint buffer.
class TensorView {
 public:
  TensorView() = default;
  /// Contiguous.
  TensorView(void* data, DType dtype, Shape shape);
  TensorView(const void* data, DType dtype, Shape shape) : TensorView(const_cast<void*>(data), dtype, shape) {}

  void* data() const { return data_; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  std::int64_t dim(int axis) const { return shape_[axis]; }
  std::int64_t stride(int axis) const { return strides_[axis < 0 ? axis + shape_.rank() : axis]; }
  std::int64_t element_count() const { return shape_.element_count(); }
  /// False only for a default-constructed view: a view from a measuring arena is defined but has no memory.
  bool defined() const { return data_ != nullptr || rank() > 0; }
  bool contiguous() const;
  std::size_t byte_count() const { return static_cast<std::size_t>(element_count()) * dtype_size(dtype_); }

  /// Typed pointer; T must match dtype() (float, BFloat16, Float16, std::int8_t, std::int32_t).
  template <typename T>
  T* as() const {
    OCTAVO_CHECK(kDTypeOf<T> == dtype_, "tensor is {}, read as {}", dtype_name(dtype_), dtype_name(kDTypeOf<T>));
    return static_cast<T*>(data_);
  }
  float* f32() const { return as<float>(); }

  /// Elements [begin, begin + count) of `axis`; shares memory.
  TensorView slice(int axis, std::int64_t begin, std::int64_t count) const;
  /// The same shape and strides at another address: a copy's view.
  TensorView moved_to(void* data) const {
    TensorView moved = *this;
    moved.data_ = data;
    return moved;
  }
  /// Same elements, new extents; requires contiguous().
  TensorView reshape(Shape shape) const;

 private:
  void* data_ = nullptr;
  DType dtype_ = DType::kF32;
  Shape shape_;
  std::array<std::int64_t, Shape::kMaxRank> strides_{};
};

}  // namespace octavo
