// Some ranks of a launched world, for programs that call the engine: messages, of any length, from each to all.
//
// One thread at a time calls the groups of a world. A call waits for the other ranks as long as they take, and ends
// early when the program is interrupted.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "parallel/group.h"

namespace chorus::python {

class RankGroup {
 public:
  // `transport` null: a world of one.
  RankGroup(std::shared_ptr<Transport> transport, std::vector<int> members)
      : transport_(transport), group_(std::move(transport), std::move(members)) {}

  int rank() const { return group_.rank(); }
  int size() const { return group_.size(); }
  // What each rank has given, by rank. `interrupted` is asked every 20 ms; true ends the call, `cancelled`, and breaks
  // the world.
  Result<std::vector<std::string>> all_gather(const std::string& own, const std::function<bool()>& interrupted);

 private:
  Result<void> wait_for(int peer, const std::function<bool()>& interrupted);

  std::shared_ptr<Transport> transport_;
  Group group_;
};

}  // namespace chorus::python
