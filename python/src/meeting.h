// Where the ranks of a launcher's job meet, for every engine and every group of this process in turn. All ranks ask for
// the same in the same order, one thread of each at a time.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "base/result.h"
#include "parallel/launch/launcher.h"
#include "parallel/launch/rendezvous.h"
#include "parallel/store/store.h"

namespace chorus::python {

class Meeting {
 public:
  // `key_file`: the cluster's key, or empty. Errors: invalid_argument (no launcher's variables; several nodes and no
  // key), deadline_exceeded.
  static Result<std::shared_ptr<Meeting>> open(const std::map<std::string, std::string>& environment,
                                               const std::string& key_file, int timeout_ms);

  int rank() const { return environment_.rank; }
  int world_size() const { return environment_.world_size; }
  // The place of the next world that is made here.
  std::shared_ptr<Store> next();
  // A world of all ranks, for those who call the engine rather than compute: null in a world of one.
  Result<std::shared_ptr<Transport>> join();

 private:
  LauncherEnvironment environment_;
  std::shared_ptr<const ClusterKey> key_;
  MeetingPlace place_;  // rank 0's server stays for the engines to come
  int timeout_ms_ = 0;
  int worlds_ = 0;
};

}  // namespace chorus::python
