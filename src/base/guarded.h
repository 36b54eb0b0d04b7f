// Guarded<T>: a value that can be reached only with its lock held.
#pragma once

#include <mutex>
#include <utility>

namespace octavo {

template <typename T>
class Guarded {
 public:
  /// Holds the lock while alive; use as a pointer.
  class Access {
   public:
    T* operator->() { return value_; }
    T& operator*() { return *value_; }
    /// For condition variables.
    std::unique_lock<std::mutex>& lock() { return lock_; }

   private:
    friend class Guarded;
    Access(std::mutex& mutex, T* value) : lock_(mutex), value_(value) {}
    std::unique_lock<std::mutex> lock_;
    T* value_;
  };

  template <typename... Args>
  explicit Guarded(Args&&... args) : value_(std::forward<Args>(args)...) {}
  Access lock() { return Access(mutex_, &value_); }

 private:
  std::mutex mutex_;
  T value_;
};

}  // namespace octavo
