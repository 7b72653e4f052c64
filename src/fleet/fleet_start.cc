// The real surroundings: weights from the model's directory.
#include "fleet/fleet_setup.h"

namespace chorus {

Result<std::unique_ptr<Fleet>> Fleet::start(const EngineConfig& config, const ModelConfig& model,
                                            const std::function<bool()>& interrupted) {
  if (config.distributed_executor_backend == "external_launcher") {
    return fail(
        ErrorCode::invalid_argument,
        "--distributed-executor-backend external_launcher is for chorus generate under torchrun, mpirun or srun; "
        "use mp, which starts its workers itself");
  }
  if (config.headless) {
    return fail(ErrorCode::invalid_argument,
                "--headless is chorus serve's: this command is the front end; leave it out");
  }
  return start_fleet(config, model, FleetSetup{load_weights, supervisor_limits(config), interrupted, {}});
}

}  // namespace chorus
