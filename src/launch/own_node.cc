#include "launch/own_node.h"

#include <poll.h>

namespace chorus {
namespace {

constexpr int end_within_ms = 2'000;
constexpr int look_every_ms = 10;

}  // namespace

OwnNode::OwnNode(const EngineConfig& config, const ModelConfig& model, const RemoteNodeSetup& setup)
    : thread_([this, config, model, setup] {
        const auto stopped = [&] { return stop_ || (setup.interrupted && setup.interrupted()); };
        const auto load = [&](const auto&... arguments) {
          auto weights = setup.load_weights(arguments...);
          loaded_ = true;
          return weights;
        };
        result_ = run_remote_node(config, model, RemoteNodeSetup{load, stopped, setup.engine_program});
        ended_ = true;
      }) {}

OwnNode::~OwnNode() {
  for (int waited = 0; !ended_ && waited < end_within_ms; waited += look_every_ms) ::poll(nullptr, 0, look_every_ms);
  stop_ = true;
  thread_.join();
}

}  // namespace chorus
