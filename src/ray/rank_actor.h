// The actor that holds the place of a data-parallel rank. Ray starts it where it has reserved the rank's resources; it
// then starts the rank's node (`chorus serve --headless`), which ends with it. An actor that Ray restarts starts it
// again.
#pragma once

#include <ray/api.h>
#include <sys/types.h>

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace chorus::ray_launcher {

class RankActor {
 public:
  static RankActor* Create(std::vector<std::string> command);

  // At once where it is, {"node": ADDRESS, "pid": N}; with `until_end` when the child has ended, {"status": N,
  // "signal": N, "last_words": TEXT}.
  std::string Report(bool until_end);

 private:
  explicit RankActor(std::vector<std::string> command);
  void keep();
  void take_output(int descriptor);

  std::vector<std::string> command_;
  std::mutex mutex_;
  std::condition_variable changed_;
  pid_t child_ = 0;
  bool ended_ = false;
  int status_ = 0;  // as waitpid(2)
  std::string last_words_;
  std::thread keeper_;  // the child's parent: lives as long as this process
};

}  // namespace chorus::ray_launcher
