// The memory in which a replica shows its progress (base/progress.h): the parent makes it, the engine and its workers
// get the descriptor with PROGRESS.
#pragma once

#include "base/progress.h"
#include "base/result.h"
#include "net/unique_fd.h"

namespace chorus {

class ProgressMemory {
 public:
  ProgressMemory() = default;  // none: nobody watches
  static Result<ProgressMemory> create();
  // From the other side. Refuses what is not such a memory.
  static Result<ProgressMemory> open(UniqueFd fd);

  int fd() const { return fd_.get(); }
  const Progress& progress() const { return progress_; }

 private:
  static Result<ProgressMemory> map(UniqueFd fd);

  UniqueFd fd_;
  Progress progress_;
};

}  // namespace chorus
