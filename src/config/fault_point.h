// Where a process of a replica dies, for tests of what the others do then (--fault-point): a value that is carried to
// every worker and does nothing unless it names it.
#pragma once

#include <span>
#include <string>

#include "base/result.h"

namespace chorus {

// In the order of a worker's life. Each is passed by every worker of every replica, the engine included.
//   configured     it knows what to be
//   joined         it is in the shared memory of its replica
//   made           its part of the model and its KV memory are there; all workers have got so far
//   idle           before it waits for a plan (the engine: before it makes one)
//   plan-received  it knows the step (the engine: has told it to the others)
//   layers-done    its layers are computed, nothing was sent back
//   step-done      its part of the step is told
//   told-to-end    in an orderly end
std::span<const char* const> fault_point_names();

class FaultPoint {
 public:
  FaultPoint() = default;
  // "WORKER@NAME[:N]" with WORKER as in `ps` ("dp=1 pp=0 tp=1"): that worker is killed (SIGKILL) when it comes to NAME
  // for the N-th time (1). Empty: never. Errors: no such name, no number.
  static Result<FaultPoint> parse(const std::string& text);
  // For this worker, in the first incarnation of its replica alone.
  FaultPoint of(const std::string& worker, bool first_incarnation) const;
  // Does not return if this is where the worker dies.
  void pass(const char* name);

 private:
  std::string worker_, name_;
  int left_ = 0;  // passes until death; 0: never
};

}  // namespace chorus
