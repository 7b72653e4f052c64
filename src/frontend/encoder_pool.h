// A few threads that make prompts into tokens, beside the one that talks to the fleet. Jobs begin in the order in which
// they came. The caller bounds how many there are.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace chorus {

class EncoderPool {
 public:
  explicit EncoderPool(int threads);
  ~EncoderPool();  // waits for the jobs that have begun; the others never run

  void add(std::function<void()> job);

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace chorus
