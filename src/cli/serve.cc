// chorus serve MODEL --headless: the engines of a node without a front end, for a fleet on another machine.
#include "cli/commands.h"
#include "cli/read_model.h"
#include "exec/kv_capacity.h"
#include "launch/remote_node.h"

namespace chorus {
namespace {

Result<int> serve(const EngineConfig& engine) {
  if (!engine.headless) {
    return fail(ErrorCode::invalid_argument,
                "serve runs with --headless alone: the HTTP server is not part of this version; use chorus generate "
                "for offline work");
  }
  CHORUS_TRY(const ModelConfig model, read_model(engine));
  CHORUS_TRY(const EngineConfig fitted, fit_to_kv_memory(engine, model, detect_node()));
  CHORUS_TRY_VOID(run_remote_node(fitted, model, interrupted));
  return exit_done;
}

}  // namespace

std::function<Result<int>()> declare_serve(Options& options) {
  auto engine = std::make_shared<EngineConfig>();
  options.positional("MODEL", &engine->model, "Hugging Face model directory");
  options.engine(engine.get());
  return [engine] { return serve(*engine); };
}

}  // namespace chorus
