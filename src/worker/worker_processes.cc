#include "worker/worker_processes.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "worker/child_start.h"
#include "worker/process_main.h"
#include "worker/spread_world.h"

namespace chorus {
namespace {

constexpr int end_timeout_ms = 1'000;
// The kernel closes a dying process's sockets before its pidfd tells, on a busy machine long before. The replica has
// ended in any case; the exit status says why.
constexpr int exit_after_close_ms = 250;
constexpr const char* name_prefix = "chorus worker ";

}  // namespace

int first_world_rank(const EngineStart& start, int world_rank) {
  const ParallelConfig& parallel = start.config.parallel;
  return parallel.replicas_step_together() ? 0 : world_rank / parallel.replica_size() * parallel.replica_size();
}

FaultPoint fault_point_of(const EngineStart& start, int world_rank) {
  const auto point = FaultPoint::parse(start.config.fault_point);
  const auto topology = Topology::create(start.config.parallel, start.config.parallel.world_size());
  if (!point.ok() || !topology.ok()) return {};
  return point->of(worker_name(*topology, world_rank), start.epoch == 1);
}

WorkerSetup worker_setup(const EngineStart& start, int world_rank, std::shared_ptr<Transport> transport) {
  WorkerSetup setup;
  setup.config = start.config;
  setup.model = start.model;
  setup.world_rank = world_rank;
  setup.kv_cache_bytes = start.kv_cache_bytes;
  setup.threads = start.threads;
  const int replica_size = start.config.parallel.replica_size();
  const auto local = static_cast<std::size_t>(world_rank % replica_size);
  if (local < start.worker_cpus.size()) setup.cpus = start.worker_cpus[local];
  setup.transport = std::move(transport);
  setup.first_world_rank = first_world_rank(start, world_rank);
  setup.fault = fault_point_of(start, world_rank);
  return setup;
}

Result<std::unique_ptr<WorkerProcesses>> WorkerProcesses::start(const EngineStart& start, const LoadedWeights& weights,
                                                                const SharedWorld& world,
                                                                const ProgressMemory& progress) {
  std::unique_ptr<WorkerProcesses> processes(new WorkerProcesses);
  const int replica_size = start.config.parallel.replica_size();
  for (int worker = 1; worker < replica_size; ++worker) {
    CHORUS_TRY_VOID(processes->spawn(start, start.dp_rank * replica_size + worker));
  }
  auto ready = processes->wait_until_ready({start, weights, world, progress});
  if (!ready.ok()) {
    processes->kill();
    return ready.error();
  }
  return processes;
}

Result<void> WorkerProcesses::spawn(const EngineStart& start, int world_rank) {
  CHORUS_TRY(const Topology topology, Topology::create(start.config.parallel, start.config.parallel.world_size()));
  Worker& worker = workers_.emplace_back();
  const std::string where = worker_name(topology, world_rank);
  worker.name = "worker " + where;
  CHORUS_TRY(auto sockets, make_socket_pair());
  CHORUS_TRY(worker.connection, make_socket_connection(std::move(sockets.first)));
  CHORUS_TRY(worker.process, ChildProcess::spawn(name_prefix + where, sockets.second, engine_socket_fd));
  return {};
}

Result<void> WorkerProcesses::wait_until_ready(const Share& share) {
  const EngineStart& start = share.start;
  const Nanoseconds deadline = monotonic_now() + Nanoseconds{start.config.engine_start_timeout_ms} * 1'000'000;
  std::vector<pollfd> items;
  while (true) {
    for (std::size_t i = 0; i < workers_.size(); ++i) {
      Worker& worker = workers_[i];
      const int world_rank = start.dp_rank * start.config.parallel.replica_size() + static_cast<int>(i) + 1;
      const auto answer = [&](const Frame& frame) { return shake_hands(&worker, frame, share, world_rank); };
      CHORUS_TRY_VOID(check_worker(&worker, answer));
    }
    if (std::ranges::all_of(workers_, &Worker::ready)) return {};
    items.clear();
    append_descriptors(&items);
    const int wait_ms = milliseconds_until(deadline);
    if (wait_ms == 0) {
      const auto late = std::ranges::find(workers_, false, &Worker::ready);
      return fail(ErrorCode::deadline_exceeded, "{} was not ready within {} ms",
                  late == workers_.end() ? "a worker" : late->name, start.config.engine_start_timeout_ms);
    }
    ::poll(items.data(), items.size(), wait_ms);
  }
}

Result<void> WorkerProcesses::shake_hands(Worker* worker, const Frame& frame, const Share& share, int world_rank) {
  switch (static_cast<MessageType>(frame.type)) {
    case MessageType::hello: {
      CHORUS_TRY(const HelloMessage hello, decode_hello(frame.payload));
      if (hello.version != protocol_version) {
        return fail(ErrorCode::invalid_argument, "{} speaks protocol {}, this engine {}: restart chorus", worker->name,
                    hello.version, protocol_version);
      }
      const auto send = [&](MessageType type, std::string payload, int descriptor) {
        return worker->connection->send(static_cast<std::uint8_t>(type), share.start.epoch, std::move(payload),
                                        descriptor);
      };
      CHORUS_TRY_VOID(
          send(MessageType::config, encode(WorkerStart{share.start, world_rank}), share.weights.arena.fd()));
      if (share.start.shows_progress) CHORUS_TRY_VOID(send(MessageType::progress, {}, share.progress.fd()));
      return send(MessageType::world, {}, share.world.fd());
    }
    case MessageType::ready:
      worker->ready = true;
      return {};
    default:
      return fail(ErrorCode::invalid_argument, "{} sent a message of type {} while starting", worker->name, frame.type);
  }
}

WorkerProcesses::~WorkerProcesses() {
  const Nanoseconds deadline = monotonic_now() + Nanoseconds{end_timeout_ms} * 1'000'000;
  for (Worker& worker : workers_) {
    if (worker.process.running()) worker.process.reap(milliseconds_until(deadline));
  }
  kill();  // all first, so that they end side by side; ~ChildProcess reaps
}

void WorkerProcesses::append_descriptors(std::vector<pollfd>* items) const {
  for (const Worker& worker : workers_) {
    if (worker.connection) items->push_back({worker.connection->fd(), POLLIN, 0});
    items->push_back({worker.process.pidfd(), POLLIN, 0});
  }
}

Result<void> WorkerProcesses::check() {
  const auto ignore = [](const Frame&) { return Result<void>(); };
  Result<void> first;
  for (Worker& worker : workers_) {
    auto checked = check_worker(&worker, ignore);
    if (!checked.ok() && (first.ok() || worker.killed)) first = std::move(checked);
    if (worker.killed) break;
  }
  return first;
}

Result<void> WorkerProcesses::check_worker(Worker* worker, const OnFrame& on_frame) {
  std::string words;
  bool closed = worker->connection == nullptr;
  while (!closed && words.empty()) {
    auto frame = worker->connection->receive();
    if (frame.ok() && !frame->has_value()) break;
    closed = !frame.ok();
    if (closed) break;
    if ((*frame)->type != static_cast<std::uint8_t>(MessageType::fatal)) {
      CHORUS_TRY_VOID(on_frame(**frame));
      continue;
    }
    const auto fatal = decode_fatal((*frame)->payload);
    if (fatal.ok()) words = ": " + fatal->message;
  }
  if (closed) worker->connection.reset();
  const auto status = worker->process.reap(closed ? exit_after_close_ms : 0);
  worker->killed = status && status->signal != 0;
  if (status)
    return fail(ErrorCode::unavailable, "{} (pid {}) {}{}", worker->name, worker->process.last_pid(), describe(*status),
                words);
  if (!words.empty()) return fail(ErrorCode::unavailable, "{}{}", worker->name, words);
  if (closed) return fail(ErrorCode::unavailable, "{} closed its connection", worker->name);
  return {};
}

void WorkerProcesses::kill() {
  for (Worker& worker : workers_) worker.process.kill();
}

bool is_worker_process(int argc, char** argv) {
  return argc > 0 && argv[0] != nullptr && std::string_view(argv[0]).starts_with(name_prefix);
}

namespace {

struct JoinedWorker {
  WorkerSetup setup;
  LoadedWeights weights;
};

Result<std::shared_ptr<Transport>> join_world_of(Connection* connection, const WorkerStart& begin) {
  if (begin.start.world_spans_nodes()) return join_spread_world(connection, begin.start, begin.world_rank);
  CHORUS_TRY(Frame frame, receive_with_descriptor(connection, MessageType::world, "WORLD"));
  CHORUS_TRY(const SharedWorld world, SharedWorld::open(frame.descriptor.release()));
  CHORUS_TRY(auto transport, world.join(begin.world_rank - first_world_rank(begin.start, begin.world_rank),
                                        begin.start.config.engine_heartbeat_timeout_ms));
  return std::shared_ptr<Transport>(std::move(transport));
}

Result<JoinedWorker> join_replica(Connection* connection) {
  CHORUS_TRY(Frame config, ask_for_configuration(connection));
  CHORUS_TRY(const WorkerStart begin, decode_worker_start(config.payload));
  FaultPoint fault = fault_point_of(begin.start, begin.world_rank);
  fault.pass("configured");
  JoinedWorker joined;
  CHORUS_TRY(joined.weights, open_weights(begin.start, std::move(config.descriptor)));
  CHORUS_TRY(const ProgressMemory progress, receive_progress_memory(connection, begin.start));
  CHORUS_TRY(auto transport, join_world_of(connection, begin));
  fault.pass("joined");
  joined.setup = worker_setup(begin.start, begin.world_rank, std::move(transport));
  joined.setup.progress = progress.progress();
  CHORUS_TRY_VOID(send_message(connection, MessageType::ready, begin.start.epoch, encode(ReadyMessage{})));
  CHORUS_TRY_VOID(flush_within(connection, begin.start.config.engine_start_timeout_ms));
  return joined;
}

}  // namespace

int worker_process_main(int socket_fd) {
  return child_process_main(socket_fd, "chorus worker", "worker process", [](Connection* connection) {
    auto joined = join_replica(connection);
    if (!joined.ok()) return end_with(connection, 0, joined.error(), true);
    const auto ran = run_worker(joined->setup, joined->weights, {});
    return ran.ok() ? exit_ok : end_with(connection, 0, ran.error(), false);
  });
}

}  // namespace chorus
