// The worker's own threads. An operation calls run(f): f(thread, thread_count) runs on every thread (the caller is
// thread 0) and run returns when all are done. Waiting threads spin for a few microseconds, then sleep on a futex.
// Nothing is allocated. Not reentrant; one caller at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

namespace chorus {

class ThreadPool {
 public:
  // `cpus`: one logical CPU a thread to pin to, or empty for no pinning (the caller's thread is pinned too).
  explicit ThreadPool(int threads, const std::vector<int>& cpus = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  template <typename F>
  void run(F&& f) {
    using Function = std::remove_reference_t<F>;
    run_raw([](void* context, int thread, int count) { (*static_cast<Function*>(context))(thread, count); },
            const_cast<void*>(static_cast<const void*>(&f)));
  }

  // Splits [0, total) in `size()` even, contiguous ranges: f(begin, end) for each. Which thread computes an output
  // never changes its value.
  template <typename F>
  void for_range(std::int64_t total, F&& f) {
    run([&](int thread, int count) {
      const std::int64_t begin = total * thread / count, end = total * (thread + 1) / count;
      if (begin < end) f(begin, end);
    });
  }

 private:
  using RawFunction = void (*)(void* context, int thread, int count);
  void run_raw(RawFunction function, void* context);
  struct State;
  int size_;
  std::unique_ptr<State> state_;
};

}  // namespace chorus
