// The actor that holds the place of a data-parallel rank, or of a part of one. Ray starts it where it has reserved the
// resources; it then starts the node (`chorus serve --headless`), which ends with it.
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
  // `network`: network_of_this_process() of the head. `only_here`: why the command may not run in another one, its last
  // words there; empty: it may.
  static RankActor* Create(std::vector<std::string> command, std::string network, std::string only_here);

  // At once where it is, {"node": ADDRESS, "pid": N}; with `until_end` when the child has ended, {"status": N,
  // "signal": N, "last_words": TEXT}.
  std::string Report(bool until_end);

 private:
  RankActor(std::vector<std::string> command, std::string refusal);
  void keep();
  void take_output(int descriptor);

  std::vector<std::string> command_;
  std::string refusal_;  // why it is not started here; empty: it is
  std::mutex mutex_;
  std::condition_variable changed_;
  pid_t child_ = 0;
  bool ended_ = false;
  int status_ = 0;  // as waitpid(2)
  std::string last_words_;
  std::thread keeper_;  // the child's parent: lives as long as this process
};

// Names what the loopback address reaches from here: the machine, or a network namespace of it.
std::string network_of_this_process();

}  // namespace chorus::ray_launcher
