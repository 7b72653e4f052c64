// Fibers for the emulation: stacks, and the switch between them, which the sanitizers are told of.
#pragma once

#include <cstddef>
#include <cstdint>

namespace simt {

// Stacks of 64 KiB (256 under AddressSanitizer, whose frames are larger), each below a page that no one may touch.
class FiberStacks {
 public:
  explicit FiberStacks(std::size_t count);
  ~FiberStacks();
  FiberStacks(const FiberStacks&) = delete;
  FiberStacks& operator=(const FiberStacks&) = delete;
  std::size_t count() const { return count_; }
  std::byte* bottom(std::size_t index) const;
  static std::size_t bytes();

 private:
  std::size_t count_;
  std::byte* memory_ = nullptr;
};

// A place where execution can go on: a fiber's, or the caller's own.
class FiberContext {
 public:
  FiberContext() = default;
  ~FiberContext();
  FiberContext(FiberContext&& other) noexcept;
  FiberContext& operator=(FiberContext&&) = delete;
  // The next switch to this context calls `entry` on stack `index`; entry never returns.
  void start(const FiberStacks& stacks, std::size_t index, void (*entry)());
  // Saves execution here and goes on at `to`; `last`: nobody comes back here.
  void switch_to(FiberContext& to, bool last);

 private:
  void end_sanitizer_fiber();
  void arrived(void* fake_stack);

  void* stack_pointer_ = nullptr;
  const void* bottom_ = nullptr;  // as AddressSanitizer knows the stack
  std::size_t bytes_ = 0;
  void* thread_sanitizer_fiber_ = nullptr;
  bool owns_fiber_ = false;
  void (*entry_)() = nullptr;
  friend void fiber_entered();
};

}  // namespace simt
