#include "kernels/thread_pool.h"

#include <sched.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "base/check.h"
#include "base/log.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace chorus {
namespace {

// Longer than the gap between two operations of a decode step, shorter than what a user would notice as load when idle.
constexpr std::chrono::microseconds spin_time{50};

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// A pool that cannot run is worse than one that is not pinned: a refused CPU is a warning.
void pin_this_thread(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cpu), &set);
  if (sched_setaffinity(0, sizeof(set), &set) != 0) {
    log(LogLevel::warning, "cannot pin a thread to CPU {}: {}: it runs unpinned; check --cpu-threads-bind", cpu,
        std::strerror(errno));
  }
}

int allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return CPU_COUNT(&set);
}

}  // namespace

struct ThreadPool::State {
  // The call in progress. Written by the caller before `calls` moves on, read by the workers after they saw that.
  RawFunction function = nullptr;
  void* context = nullptr;
  bool stopping = false;
  bool spin = true;
  // Every change is a read-modify-write: notify must not be ordered before it (libstdc++ skips the futex call when it
  // sees no waiter).
  alignas(64) std::atomic<std::uint32_t> calls{0};
  alignas(64) std::atomic<std::int32_t> working{0};
  std::vector<std::thread> threads;

  // Returns when `value` satisfies `done`: spins first, then sleeps.
  template <typename T, typename Done>
  T await(const std::atomic<T>& value, Done done) const {
    T now = value.load(std::memory_order_acquire);
    if (spin && !done(now)) {
      const auto deadline = std::chrono::steady_clock::now() + spin_time;
      do {
        for (int i = 0; i < 16 && !done(now); ++i) {
          pause();
          now = value.load(std::memory_order_acquire);
        }
      } while (!done(now) && std::chrono::steady_clock::now() < deadline);
    }
    while (!done(now)) {
      value.wait(now, std::memory_order_acquire);
      now = value.load(std::memory_order_acquire);
    }
    return now;
  }

  void work(int thread, int count) {
    std::uint32_t seen = 0;
    while (true) {
      seen = await(calls, [seen](std::uint32_t now) { return now != seen; });
      if (stopping) return;
      function(context, thread, count);
      if (working.fetch_sub(1, std::memory_order_acq_rel) == 1) working.notify_one();
    }
  }

  void announce() {
    calls.fetch_add(1, std::memory_order_seq_cst);
    calls.notify_all();
  }
};

ThreadPool::ThreadPool(int threads, const std::vector<int>& cpus) : size_(threads), state_(std::make_unique<State>()) {
  CHECK(threads >= 1, "threads {}", threads);
  CHECK(cpus.empty() || cpus.size() == static_cast<std::size_t>(threads), "{} cpus for {} threads", cpus.size(),
        threads);
  // With more threads than cores a spinning thread would keep the one it waits for from running.
  state_->spin = threads <= allowed_cpus();
  for (int thread = 1; thread < threads; ++thread) {
    const int cpu = cpus.empty() ? -1 : cpus[static_cast<std::size_t>(thread)];
    state_->threads.emplace_back([state = state_.get(), thread, threads, cpu] {
      if (cpu >= 0) pin_this_thread(cpu);
      state->work(thread, threads);
    });
  }
  if (!cpus.empty()) pin_this_thread(cpus.front());
}

ThreadPool::~ThreadPool() {
  state_->stopping = true;
  state_->announce();
  for (std::thread& thread : state_->threads) thread.join();
}

void ThreadPool::run_raw(RawFunction function, void* context) {
  if (size_ == 1) return function(context, 0, 1);
  state_->function = function;
  state_->context = context;
  state_->working.store(size_ - 1, std::memory_order_relaxed);
  state_->announce();
  function(context, 0, size_);
  state_->await(state_->working, [](std::int32_t now) { return now == 0; });
}

}  // namespace chorus
