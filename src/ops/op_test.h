// What the tests of all ops share: a CPU context, tensors that own their memory, and every row against the reference.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "ops/kernel_table.h"
#include "ops/rows.h"
#include "testing/expect_close.h"

namespace octavo::ops {

/// A context on the CPU with scratch for small shapes.
class TestContext {
 public:
  explicit TestContext(int thread_count = 0)
      : device_(device::create_cpu_device(thread_count)),
        stream_(device_->create_stream()),
        context_(*device_, *stream_, arena_) {
    constexpr std::size_t kScratchBytes = 16 << 20;
    OCTAVO_CHECK(arena_.reserve(*device_, kScratchBytes).ok(), "no memory for a test");
  }
  ExecutionContext& get() { return context_; }
  device::Device& device() { return *device_; }
  /// The context, with `op` forced to `row`.
  ExecutionContext& with_row(std::string_view op, std::string_view row) {
    context_.set_kernel_overrides({{std::string(op), std::string(row)}});
    return context_;
  }
  /// The table's rows that this machine has the instructions for.
  std::vector<std::string_view> rows(const KernelTableBase& table) const {
    std::vector<std::string_view> names = table.row_names();
    if (!context_.traits().has_avx2) std::erase(names, std::string_view("vector"));
    return names;
  }
  /// The table's rows that can compute these arguments here.
  template <typename Args>
  std::vector<std::string_view> rows_for(const KernelTable<Args>& table, const Args& args) const {
    std::vector<std::string_view> names;
    for (const auto& row : table.rows()) {
      if (row.supports == nullptr || row.supports(args, context_.traits())) names.push_back(row.name);
    }
    return names;
  }

 private:
  std::unique_ptr<device::Device> device_;
  std::unique_ptr<device::Stream> stream_;
  device::Arena arena_;
  ExecutionContext context_;
};

/// Owns its elements, poisoned at first. `padding` elements lie unused after every row, so that outer strides are not
/// those of a dense tensor.
class TestTensor {
 public:
  TestTensor(DType dtype, const Shape& shape, std::int64_t padding = 0) {
    Shape padded;
    for (int axis = 0; axis < shape.rank(); ++axis)
      padded.append(shape[axis] + (axis + 1 == shape.rank() ? padding : 0));
    bytes_.resize(static_cast<std::size_t>(padded.element_count()) * dtype_size(dtype));
    const TensorView whole(bytes_.data(), dtype, padded);
    testing::poison(whole);
    view_ = padding == 0 ? whole : whole.slice(-1, 0, shape[-1]);
  }
  TestTensor(const TestTensor& other) : bytes_(other.bytes_), view_(other.view_.moved_to(bytes_.data())) {}
  TestTensor(TestTensor&&) = default;
  TestTensor& operator=(TestTensor&&) = default;

  /// Normal values with the given spread, around `mean`; the same for the same seed whatever dtype and padding.
  static TestTensor random(DType dtype, const Shape& shape, unsigned seed, float spread = 1.0f, float mean = 0.0f,
                           std::int64_t padding = 0) {
    TestTensor tensor(dtype, shape, padding);
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal(mean, spread);
    tensor.for_each_row([&](const Row& row) {
      for (std::int64_t i = 0; i < shape[-1]; ++i) row.set(i, normal(engine));
    });
    return tensor;
  }

  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }  // NOLINT: implicit, so that tests read like calls

  /// Calls body(row) for every row, in order.
  template <typename Body>
  void for_each_row(const Body& body) const {
    const Shape& s = view_.shape();
    switch (s.rank()) {
      case 1:
        body(Row(view_, {}));
        return;
      case 2:
        for (std::int64_t a = 0; a < s[0]; ++a) body(Row(view_, {a}));
        return;
      case 3:
        for (std::int64_t a = 0; a < s[0]; ++a)
          for (std::int64_t b = 0; b < s[1]; ++b) body(Row(view_, {a, b}));
        return;
      default:
        for (std::int64_t a = 0; a < s[0]; ++a)
          for (std::int64_t b = 0; b < s[1]; ++b)
            for (std::int64_t c = 0; c < s[2]; ++c) body(Row(view_, {a, b, c}));
    }
  }

  std::vector<std::byte>& all_bytes() { return bytes_; }
  const std::vector<std::byte>& all_bytes() const { return bytes_; }

  /// Bit for bit, padding included.
  bool same_bytes(const TestTensor& other) const { return bytes_ == other.bytes_; }

 private:
  std::vector<std::byte> bytes_;
  TensorView view_;
};

/// Codes of 8 bits with a scale a row, poisoned at first.
struct TestCodes {
  TestCodes(DType format, const Shape& shape)
      : codes(format, shape), scales(DType::kF32, Shape{shape.element_count() / shape[-1]}) {}
  QuantizedView view() const { return {codes, scales, ScaleGrain::kRow}; }
  bool same_bytes(const TestCodes& other) const {
    return codes.same_bytes(other.codes) && scales.same_bytes(other.scales);
  }
  TestTensor codes, scales;
};

/// One f32, as scales of whole tensors come.
inline TestTensor one_value(float value) {
  TestTensor tensor(DType::kF32, Shape{1});
  *tensor.view().f32() = value;
  return tensor;
}

inline const testing::Tolerance& op_tolerance(DType output) {
  return output == DType::kF32 ? testing::kOpF32 : testing::kOpBf16Stored;
}

/// Elements of two views, bit for bit.
inline ::testing::AssertionResult same_bits(const TensorView& actual, const TensorView& expected) {
  return testing::expect_close(actual, expected, testing::kExact);
}

}  // namespace octavo::ops
