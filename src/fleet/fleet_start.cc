// The real surroundings: weights from the model's directory, the model's executor in the engine process.
#include "fleet/engine_process.h"
#include "fleet/fleet_setup.h"

namespace chorus {

Result<std::unique_ptr<Fleet>> Fleet::start(const EngineConfig& config, const ModelConfig& model,
                                            const std::function<bool()>& interrupted) {
  const auto load = [&interrupted](const EngineConfig& engine, const ModelConfig& weights_of, int threads) {
    return load_weights(engine, weights_of, threads, interrupted);
  };
  return start_fleet(config, model, FleetSetup{load, supervisor_limits(config), interrupted});
}

int engine_process_main(int socket_fd) {
  return engine_process_main(socket_fd, [](const EngineStart& start, const LoadedWeights& weights) {
    EngineConfig config = start.config;
    config.kv_cache_bytes = start.kv_cache_bytes;
    return make_uniproc_executor(config, start.model, weights, start.threads, start.cpus);
  });
}

}  // namespace chorus
