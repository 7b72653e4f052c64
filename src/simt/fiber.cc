#include "simt/fiber.h"

#include <sys/mman.h>

#include <utility>

#include "base/check.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

// Saves the registers that a function keeps (System V ABI, x86-64, section 3.2.1) on this stack, and takes the other's.
extern "C" void chorus_fiber_switch(void** save, void* load);
asm(R"(.text
.globl chorus_fiber_switch
.type chorus_fiber_switch, @function
chorus_fiber_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size chorus_fiber_switch, .-chorus_fiber_switch
)");

namespace simt {
namespace {

constexpr std::size_t page_bytes = 4096;

// The switch that is going on: where from and where to. Set just before it, read just after it, on the same thread.
thread_local FiberContext* leaving = nullptr;
thread_local FiberContext* entering = nullptr;

}  // namespace

std::size_t FiberStacks::bytes() {
#if defined(__SANITIZE_ADDRESS__)
  return std::size_t{256} << 10;
#else
  return std::size_t{64} << 10;
#endif
}

FiberStacks::FiberStacks(std::size_t count) : count_(count) {
  void* memory =
      mmap(nullptr, count * (bytes() + page_bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED, "no memory for {} fibers", count);
  memory_ = static_cast<std::byte*>(memory);
  for (std::size_t i = 0; i < count; ++i) mprotect(bottom(i) - page_bytes, page_bytes, PROT_NONE);
}

FiberStacks::~FiberStacks() {
  const std::size_t all = count_ * (bytes() + page_bytes);
#if defined(__SANITIZE_ADDRESS__)
  // Frames that nobody returned from are still poisoned: whatever is mapped there next, a weights file even, is not.
  __asan_unpoison_memory_region(memory_, all);
#endif
  munmap(memory_, all);
}

std::byte* FiberStacks::bottom(std::size_t index) const {
  return memory_ + index * (bytes() + page_bytes) + page_bytes;
}

// The first thing on a new stack.
void fiber_entered() {
  FiberContext& self = *entering;
  self.arrived(nullptr);
  self.entry_();
  __builtin_unreachable();
}

FiberContext::~FiberContext() {
  end_sanitizer_fiber();
}

FiberContext::FiberContext(FiberContext&& other) noexcept
    : stack_pointer_(other.stack_pointer_),
      bottom_(other.bottom_),
      bytes_(other.bytes_),
      thread_sanitizer_fiber_(std::exchange(other.thread_sanitizer_fiber_, nullptr)),
      owns_fiber_(std::exchange(other.owns_fiber_, false)),
      entry_(other.entry_) {}

void FiberContext::end_sanitizer_fiber() {
#if defined(__SANITIZE_THREAD__)
  if (owns_fiber_) __tsan_destroy_fiber(thread_sanitizer_fiber_);
#endif
  owns_fiber_ = false;
}

void FiberContext::start(const FiberStacks& stacks, std::size_t index, void (*entry)()) {
  entry_ = entry;
  bottom_ = stacks.bottom(index);
  bytes_ = FiberStacks::bytes();
#if defined(__SANITIZE_ADDRESS__)
  // The fiber that was here before ended in functions that never returned: their frames, at the top, are still
  // poisoned.
  constexpr std::size_t frames_bytes = 8192;
  __asan_unpoison_memory_region(stacks.bottom(index) + bytes_ - frames_bytes, frames_bytes);
#endif
  // Six registers, the address that the switch returns to, and one word so that it finds the stack as after a call.
  void** top = reinterpret_cast<void**>(stacks.bottom(index) + bytes_) - 2;
  top[0] = reinterpret_cast<void*>(&fiber_entered);
  top[1] = nullptr;
  for (int i = 1; i <= 6; ++i) *(top - i) = nullptr;
  stack_pointer_ = top - 6;
#if defined(__SANITIZE_THREAD__)
  if (!owns_fiber_) thread_sanitizer_fiber_ = __tsan_create_fiber(0);  // dear: kept for the next block
  owns_fiber_ = true;
#endif
}

// On the new stack: tells AddressSanitizer so, and learns where the old one lies.
void FiberContext::arrived([[maybe_unused]] void* fake_stack) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, &leaving->bottom_, &leaving->bytes_);
#endif
}

void FiberContext::switch_to(FiberContext& to, [[maybe_unused]] bool last) {
  leaving = this;
  entering = &to;
  void* fake_stack = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(last ? nullptr : &fake_stack, to.bottom_, to.bytes_);
#endif
#if defined(__SANITIZE_THREAD__)
  if (!owns_fiber_) thread_sanitizer_fiber_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(to.thread_sanitizer_fiber_, 0);
#endif
  chorus_fiber_switch(&stack_pointer_, to.stack_pointer_);
  arrived(fake_stack);
}

}  // namespace simt
