// What a fleet and its engine processes say to each other: one struct a message, one frame each (net/frame.h), the type
// in the frame's header, the epoch of the replica's incarnation too.
//
// The connection to the parent, which starts and ends the engine, is the control connection:
//
//   engine -> parent                        parent -> engine
//   HELLO   right after its start           CONFIG    answers HELLO; the weights' descriptor comes along
//   READY   it can take requests            CLIENT    this client sends requests, over the descriptor that comes along
//                                                     or, without one, over this connection; CLIENT_GONE: no longer
//   LOAD    now and then                    SHUTDOWN  end without finishing anything
//                                           PROGRESS  after CONFIG, where it says so: the memory to show progress in
//   HEARTBEAT  while idle                   WORLD     after CONFIG, to replicas that step together: their shared memory
//   WAVE    has ended                       WAVE      begins
//   FATAL   its last words
//   CONTACT where its world spans nodes     WORLD     then: the contacts of all its workers (worker/spread_world.h)
//
// Between an engine and each of its clients, over the client's connection:
//
//   engine -> client                        client -> engine
//   EVENTS  after each step                 ADD, ABORT
//   LOAD    now and then                    PREFIX_CACHE_RESET  is answered by the same, once it is done
//
// Between a front end in a separate process and the host of the fleet (fleet/client_link.h), over a third connection:
//
//   host -> front end                       front end -> host
//   NEWS    of a replica; its socket comes  NOTE, REPLICA_FAULT
//           along once it is ready
//
// A node of replicas on another machine (launch/remote_node.h) relays these between its engines and the fleet, a
// connection each. Before them it says JOIN; WELCOME answers it, with the epoch, or FATAL does, with the reason.
//
// Decoders refuse whatever does not read back exactly, with the byte and the reason. They do not judge the values
// (whether a token id is in the vocabulary): that is for the engine, or the ledger.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "cluster/replica_news.h"
#include "config/engine_config.h"
#include "config/model_config.h"
#include "kernels/isa.h"
#include "request/engine_load.h"
#include "request/prefix_hash.h"
#include "request/request.h"
#include "tensor/dtype.h"

namespace chorus {

// Raised with every change of a message. Both ends of a fleet are the same build; this catches a binary that was
// replaced under a running fleet.
inline constexpr std::uint32_t protocol_version = 11;

enum class MessageType : std::uint8_t {
  hello = 1,
  config,
  ready,
  add,
  abort,
  events,
  load,
  heartbeat,
  fatal,
  shutdown,
  world,
  wave,
  join,
  welcome,
  contact,
  client,
  client_gone,
  progress,
  news,
  note,
  replica_fault,
  metrics,
  prefix_cache_reset,
};

struct HelloMessage {
  std::uint32_t version = protocol_version;
  std::int32_t pid = 0;
  std::string best_isa;  // what this process can run, for the log
  bool operator==(const HelloMessage&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.version, self.pid, self.best_isa); }
};

// Everything an engine process needs to begin.
struct EngineStart {
  EngineConfig config;
  ModelConfig model;
  std::int32_t dp_rank = 0;
  std::uint32_t epoch = 0;
  std::uint64_t kv_cache_bytes = 0;
  std::int32_t threads = 1;
  std::vector<std::vector<std::int32_t>>
      worker_cpus;                           // of each worker of the replica: one per thread, or empty: not pinned
  std::vector<std::uint64_t> shard_offsets;  // LoadedWeights::shard_offsets
  Isa isa = Isa::scalar;                     // of the packed weights
  DType dtype = DType::bfloat16;
  // Where the workers of its world are on several nodes: this node's address for the others, and its file with the
  // cluster's key. Empty: the world is a shared memory.
  std::string world_address;
  std::string world_key_file;
  std::vector<std::int32_t> world_neighbours;  // the world's ranks on this node; several share the memory of WORLD
  bool shows_progress = false;  // PROGRESS follows, with the memory to show it in (worker/progress_memory.h)
  PrefixKey prefix_key;         // of the fleet
  bool world_spans_nodes() const { return !world_address.empty(); }
  bool operator==(const EngineStart&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) {
    return visit(self.config, self.model, self.dp_rank, self.epoch, self.kv_cache_bytes, self.threads, self.worker_cpus,
                 self.shard_offsets, self.isa, self.dtype, self.world_address, self.world_key_file,
                 self.world_neighbours, self.shows_progress, self.prefix_key);
  }
};

// The same for another worker of the replica (worker/worker_processes.h).
struct WorkerStart {
  EngineStart start;
  std::int32_t world_rank = 0;
  bool operator==(const WorkerStart&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.start, self.world_rank); }
};

struct ReadyMessage {
  std::uint64_t kv_blocks = 0;
  std::string profile;  // "amx-bf16/bfloat16"
  bool operator==(const ReadyMessage&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.kv_blocks, self.profile); }
};

struct AbortMessage {
  RequestId request;
  std::optional<std::uint32_t> choice;  // absent: the whole request
  bool operator==(const AbortMessage&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.request, self.choice); }
};

// Names and values that must be the same on all nodes (worker/cluster_fingerprint.h).
using Fingerprint = std::vector<std::pair<std::string, std::string>>;

struct JoinMessage {
  std::int32_t dp_rank = 0;
  std::int32_t worker = 0;  // of the replica; above 0 only where workers join singly
  std::string node;         // the machine's name, for the log
  Fingerprint fingerprint;
  bool operator==(const JoinMessage&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) {
    return visit(self.dp_rank, self.worker, self.node, self.fingerprint);
  }
};

struct LoadMessage {
  EngineLoad load;
  // Of each client that this connection serves: its ADDs and ABORTs of this epoch.
  std::vector<std::pair<ClientId, std::uint64_t>> messages_received;
  PrefixFeed prefixes = {};  // for clients that choose engines by it
  bool operator==(const LoadMessage&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) {
    return visit(self.load, self.messages_received, self.prefixes);
  }
};

// CLIENT and CLIENT_GONE.
struct ClientMessage {
  ClientId client = 0;
  bool operator==(const ClientMessage&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.client); }
};

// To an engine: its prefix cache is to forget everything; from it: it has.
struct PrefixCacheResetMessage {
  ClientId client = 0;
  std::uint64_t number = 0;  // of that client's
  bool operator==(const PrefixCacheResetMessage&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.client, self.number); }
};

// To engines that step together: the wave begins; from each: it has ended (engine/engine_core.h).
struct WaveMessage {
  std::uint64_t wave = 0;
  bool operator==(const WaveMessage&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.wave); }
};

struct WelcomeMessage {
  std::uint64_t world = 0;  // of the replica, or of all that step together: each has its number
  bool operator==(const WelcomeMessage&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.world); }
};

struct ContactMessage {
  std::string contact;  // TcpDoor::contact()
  bool operator==(const ContactMessage&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.contact); }
};
struct WorldMessage {
  std::vector<std::string> contacts;  // in rank order; none: the world is the descriptor that comes along
  bool operator==(const WorldMessage&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.contacts); }
};

struct FatalMessage {
  ErrorCode code = ErrorCode::internal;
  std::string message;
  bool operator==(const FatalMessage&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.code, self.message); }
};

struct NewsMessage {
  ReplicaNews news;
  std::string reason;  // of a death
  bool operator==(const NewsMessage&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.news, self.reason); }
};
// This incarnation broke the protocol, or closed its connection and lives.
struct ReplicaFaultMessage {
  Placement replica;
  std::string reason;
  bool operator==(const ReplicaFaultMessage&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.replica, self.reason); }
};

std::string encode(const ModelConfig& message);
std::string encode(const HelloMessage& message);
std::string encode(const EngineStart& message);
std::string encode(const WorkerStart& message);
std::string encode(const ReadyMessage& message);
std::string encode(const Request& message);
std::string encode(const AbortMessage& message);
std::string encode(const JoinMessage& message);
std::string encode(const LoadMessage& message);
std::string encode(const ClientMessage& message);
std::string encode(const PrefixCacheResetMessage& message);
std::string encode(const WaveMessage& message);
std::string encode(const WelcomeMessage& message);
std::string encode(const ContactMessage& message);
std::string encode(const WorldMessage& message);
std::string encode(const FatalMessage& message);
std::string encode(const NewsMessage& message);
std::string encode(const ClientNote& message);
std::string encode(const ReplicaFaultMessage& message);

// A batch of events as one or several payloads, each of at most `payload_bytes_max` unless one event alone is larger.
std::vector<std::string> encode_events(std::span<const TokenEvent> events, std::size_t payload_bytes_max);

// Makes each event that alone is over `payload_bytes_max` its choice's end with FinishReason::error. Gives their
// indices: the engine must compute no more of these choices.
std::vector<std::size_t> refuse_oversized(std::span<TokenEvent> events, std::size_t payload_bytes_max);

Result<HelloMessage> decode_hello(std::string_view payload);
Result<EngineStart> decode_engine_start(std::string_view payload);
Result<WorkerStart> decode_worker_start(std::string_view payload);
Result<ReadyMessage> decode_ready(std::string_view payload);
Result<Request> decode_request(std::string_view payload);
Result<AbortMessage> decode_abort(std::string_view payload);
Result<JoinMessage> decode_join(std::string_view payload);
Result<LoadMessage> decode_load(std::string_view payload);
Result<ClientMessage> decode_client(std::string_view payload);
Result<PrefixCacheResetMessage> decode_prefix_cache_reset(std::string_view payload);
Result<WaveMessage> decode_wave(std::string_view payload);
Result<WelcomeMessage> decode_welcome(std::string_view payload);
Result<ContactMessage> decode_contact(std::string_view payload);
Result<WorldMessage> decode_world(std::string_view payload);
Result<FatalMessage> decode_fatal(std::string_view payload);
Result<NewsMessage> decode_news(std::string_view payload);
Result<ClientNote> decode_note(std::string_view payload);
Result<ReplicaFaultMessage> decode_replica_fault(std::string_view payload);
Result<std::vector<TokenEvent>> decode_events(std::string_view payload);

}  // namespace chorus
