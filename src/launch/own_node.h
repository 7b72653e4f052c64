// The part that the head's own machine has in workers which join singly: a node like the others (remote_node.h), in a
// thread of the head's process. So there is one way in which such workers start, die and come back.
#pragma once

#include <atomic>
#include <thread>

#include "base/result.h"
#include "config/engine_config.h"
#include "config/model_config.h"
#include "launch/remote_node.h"

namespace chorus {

class OwnNode {
 public:
  // `config`: a node's, with the head's address and port. What the functions of `setup` refer to outlives this.
  OwnNode(const EngineConfig& config, const ModelConfig& model, const RemoteNodeSetup& setup);
  // Waits for the node's end, which the fleet's end brings; one that has not ended after two seconds is interrupted.
  ~OwnNode();

  // Its workers can come from now on.
  bool loaded() const { return loaded_; }
  // Why it has ended; nullptr: it runs. The node logs what happens to its workers by itself.
  const Error* failure() const { return ended_ && !result_.ok() ? &result_.error() : nullptr; }

 private:
  std::atomic<bool> stop_ = false, loaded_ = false, ended_ = false;
  Result<void> result_;
  std::thread thread_;
};

}  // namespace chorus
