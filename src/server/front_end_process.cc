#include "server/front_end_process.h"

#include <algorithm>
#include <climits>
#include <memory>
#include <utility>

#include "base/log.h"
#include "fleet/front_end_fleet.h"
#include "net/archive.h"
#include "net/connection.h"
#include "protocol/messages.h"
#include "server/front_end.h"
#include "server/metrics/metric_store.h"
#include "tokenizer/tokenizer.h"
#include "worker/child_start.h"

namespace chorus {
namespace {

struct Told {
  FrontEndStart start;
  UniqueFd listener;
  MetricStore metrics;
};

Result<Told> shake_hands(Connection* parent) {
  CHORUS_TRY(Frame frame, ask_for_configuration(parent));
  if (!frame.descriptor.valid()) return fail(ErrorCode::invalid_argument, "CONFIG came without the listening socket");
  CHORUS_TRY(FrontEndStart start, decode_front_end_start(frame.payload));
  set_log_level(static_cast<LogLevel>(std::min(start.log_level, static_cast<std::uint32_t>(LogLevel::off))));
  CHORUS_TRY(Frame memory, receive_with_descriptor(parent, MessageType::metrics, "METRICS"));
  CHORUS_TRY(MetricStore metrics,
             MetricStore::open(std::move(memory.descriptor), metric_shape(start.engine, start.model)));
  if (start.index < 0 || start.index >= metrics.layout().shape().front_ends) {
    return fail(ErrorCode::invalid_argument, "CONFIG is of front end {} of {}", start.index,
                metrics.layout().shape().front_ends);
  }
  return Told{std::move(start), std::move(frame.descriptor), std::move(metrics)};
}

// The engines' start, and the weights' loading before it, for which there is no deadline.
int join_timeout_ms(const EngineConfig& engine) {
  constexpr int loading_ms_max = 3'600'000;
  return std::min(engine.engine_start_timeout_ms, INT_MAX - loading_ms_max) + loading_ms_max;
}

// The parent has sent SHUTDOWN, or is gone.
bool is_to_end(Connection* parent) {
  while (true) {
    const auto frame = parent->receive();
    if (!frame.ok()) return true;
    if (!frame->has_value()) return false;
    if (static_cast<MessageType>((*frame)->type) == MessageType::shutdown) return true;
  }
}

Result<void> serve(Connection* parent, Told told) {
  const FrontEndStart& start = told.start;
  CHORUS_TRY(const auto tokenizer, load_tokenizer(start.engine.model));
  // The engines start meanwhile.
  CHORUS_TRY(Frame frame,
             receive_with_descriptor(parent, MessageType::client, "CLIENT", join_timeout_ms(start.engine)));
  CHORUS_TRY(const FrontEndJoin join, decode_front_end_join(frame.payload));
  FleetTimes times;
  times.profile = join.profile;
  const FrontEndConfig config = front_end_config(start);
  CHORUS_TRY(const auto fleet, make_front_end_fleet(config.engine, join.client, std::move(frame.descriptor),
                                                    std::move(times), join.prefix_key));
  CHORUS_TRY(const auto front_end, FrontEnd::make(config, tokenizer, *fleet, told.metrics, start.index));
  CHORUS_TRY_VOID(front_end->listen_on(std::move(told.listener)));
  CHORUS_TRY_VOID(send_message(parent, MessageType::ready, 0, {}));
  return front_end->run([parent] { return is_to_end(parent); });
}

}  // namespace

EngineConfig engine_of_door(EngineConfig engine, int front_end) {
  ParallelConfig& parallel = engine.parallel;
  if (!parallel.data_parallel_multi_port_external_lb) return engine;
  parallel.data_parallel_multi_port_external_lb = false;
  parallel.data_parallel_external_lb = true;
  parallel.data_parallel_start_rank += front_end;
  parallel.data_parallel_size_local = 1;
  return engine;
}

FrontEndConfig front_end_config(const FrontEndStart& start) {
  FrontEndConfig config;
  config.engine = engine_of_door(start.engine, start.index);
  config.model = start.model;
  config.model_names = start.model_names;
  config.access = start.access;
  config.version = start.version;
  config.options = start.options;
  config.shutdown_timeout_s = start.shutdown_timeout_s;
  config.formats = start.formats;
  config.tls = start.tls;
  return config;
}

MetricShape metric_shape(const EngineConfig& engine, const ModelConfig& model) {
  const int longest = engine.max_model_len > 0 ? engine.max_model_len : model.max_position_embeddings;
  return {engine.parallel.fleet_end(), std::max(engine.front_ends(), 1), static_cast<std::uint32_t>(longest),
          replica_ids_max, engine.parallel.fleet_begin()};
}

std::string encode(const FrontEndStart& message) {
  return archive::encode_value(message);
}
std::string encode(const FrontEndJoin& message) {
  return archive::encode_value(message);
}
Result<FrontEndStart> decode_front_end_start(std::string_view payload) {
  return archive::decode_value<FrontEndStart>(payload, "CONFIG");
}
Result<FrontEndJoin> decode_front_end_join(std::string_view payload) {
  return archive::decode_value<FrontEndJoin>(payload, "CLIENT");
}

bool is_front_end_process(int argc, char** argv) {
  return argc > 0 && argv[0] != nullptr && std::string_view(argv[0]).starts_with("chorus front-end ");
}

int front_end_process_main(int socket_fd) {
  return child_process_main(socket_fd, "chorus front", "front end", [](Connection* parent) {
    auto told = shake_hands(parent);
    if (!told.ok()) return end_with(parent, 0, told.error(), true);
    const auto served = serve(parent, std::move(*told));
    return served.ok() ? exit_ok : end_with(parent, 0, served.error(), false);
  });
}

}  // namespace chorus
