// Arena: the temporaries of a run, planned before it starts, bump-allocated, freed in stack order.
#pragma once

#include <cstddef>

#include "device/device.h"
#include "tensor/tensor.h"

namespace octavo::device {

/// Two modes. Measuring: take() hands out views without memory and only counts, so that a model's forward can be
/// run dry (ExecutionContext::dry_run) to learn its peak. Reserved: take() hands out real memory and never
/// allocates; running out is a CheckFailure, because the plan was wrong.
class Arena {
 public:
  static constexpr std::size_t kAlignment = 256;

  Arena() = default;  // nothing reserved
  /// Grows to at least `bytes`, keeping nothing; a no-op when it is large enough already.
  Status reserve(Device& device, std::size_t bytes);

  /// Switches to measuring (counters to zero, memory kept for later) and back.
  void set_measuring(bool measuring);
  bool measuring() const { return measuring_; }

  /// Uninitialised; valid until the Scope around it ends. While measuring the view has no memory (data() is null).
  TensorView take(DType dtype, Shape shape);

  /// Where its memory begins: changes when reserve() has grown it.
  const void* base() const { return buffer_.data(); }
  std::size_t used_bytes() const { return used_; }
  std::size_t peak_bytes() const { return peak_; }
  std::size_t capacity_bytes() const { return buffer_.byte_count(); }

  /// Gives back everything taken since its construction.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), mark_(arena.used_) {}
    ~Scope() { arena_.used_ = mark_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    std::size_t mark_;
  };

 private:
  Buffer buffer_;
  std::size_t used_ = 0;
  std::size_t peak_ = 0;
  bool measuring_ = false;
};

}  // namespace octavo::device
