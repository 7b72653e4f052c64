// What processes say to each other.
#include "exec/plan_codec.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "base/check.h"
#include "net/authenticated_connection.h"
#include "net/frame.h"
#include "net/handshake.h"
#include "protocol/messages.h"
#include "targets.h"

namespace chorus::fuzz {

void run_frames(std::string_view input) {
  // Once whole and once cut: the frames are the same.
  const auto count = [&](std::size_t piece) {
    FrameParser parser(1 << 20);
    std::size_t frames = 0;
    for (std::size_t at = 0; at < input.size(); at += piece) {
      parser.feed(input.substr(at, piece));
      for (;;) {
        const auto next = parser.next();
        if (!next.ok()) return frames;
        if (!next->has_value()) break;
        ++frames;
      }
    }
    return frames;
  };
  if (count(input.size() + 1) != count(3)) std::abort();
}

void run_messages(std::string_view input) {
  if (input.empty()) return;
  const std::string_view payload = input.substr(1);
  switch (static_cast<unsigned char>(input[0]) % 18) {
    case 0:
      return (void)decode_hello(payload);
    case 1:
      return (void)decode_engine_start(payload);
    case 2:
      return (void)decode_worker_start(payload);
    case 3:
      return (void)decode_ready(payload);
    case 4:
      return (void)decode_request(payload);
    case 5:
      return (void)decode_abort(payload);
    case 6:
      return (void)decode_join(payload);
    case 7:
      return (void)decode_load(payload);
    case 8:
      return (void)decode_wave(payload);
    case 9:
      return (void)decode_welcome(payload);
    case 10:
      return (void)decode_contact(payload);
    case 11:
      return (void)decode_world(payload);
    case 12:
      return (void)decode_fatal(payload);
    case 13:
      return (void)decode_client(payload);
    case 15:
      return (void)decode_news(payload);
    case 16:
      return (void)decode_note(payload);
    case 17:
      return (void)decode_replica_fault(payload);
    default:
      return (void)decode_events(payload);
  }
}

static void run_plan_of(std::string_view input, std::int32_t window_tables) {
  PlanDecoder decoder(PlanLimits{.vocab_size = 512, .kv_blocks = 64, .block_size = 16, .window_tables = window_tables});
  // Plans one after another, each behind two bytes of its length.
  while (input.size() >= 2) {
    const std::size_t size =
        static_cast<unsigned char>(input[0]) | static_cast<std::size_t>(static_cast<unsigned char>(input[1])) << 8;
    const std::string_view message = input.substr(2, size);
    input.remove_prefix(std::min(2 + size, input.size()));
    const auto plan = decoder.decode(message);
    if (!plan.ok()) return;
    // All that a worker reads by a plan's numbers.
    std::int64_t sum = 0;
    for (const SequencePlan& sequence : (*plan)->sequences) {
      for (const BlockId block : sequence.block_table) sum += block;
      for (const auto& table : sequence.window_tables) sum += std::accumulate(table.begin(), table.end(), 0LL);
      for (std::int32_t row = 0; row < sequence.count; ++row) {
        sum += sequence.history[static_cast<std::size_t>(sequence.start) + static_cast<std::size_t>(row)];
      }
      sum += sequence.params->max_tokens;
    }
    [[maybe_unused]] volatile std::int64_t read = sum;  // so that the compiler keeps the reads
  }
}

void run_plan(std::string_view input) {
  for (const std::int32_t window_tables : {0, 2}) run_plan_of(input, window_tables);
}

void run_handshake(std::string_view input) {
  // The first byte says which end is spoken to and whether it has the key, which the speaker lacks. Then what it says,
  // as much at a time as is asked for.
  static const ClusterKey key(std::string(cluster_key_bytes_min, 'k'));
  if (input.empty()) return;
  const bool has_key = (input[0] & 1) != 0;
  Handshake handshake((input[0] & 2) != 0 ? Handshake::Role::listener : Handshake::Role::connector,
                      has_key ? &key : nullptr, std::string(nonce_bytes, 'n'));
  input.remove_prefix(1);
  std::size_t heard = handshake.take_output().size();
  bool refused = false;
  while (!refused && !handshake.done() && input.size() >= handshake.bytes_wanted()) {
    const std::size_t wanted = handshake.bytes_wanted();
    refused = !handshake.feed(input.substr(0, wanted)).ok();
    heard += handshake.take_output().size();
    input.remove_prefix(wanted);
  }
  CHECK(heard <= 2 * handshake_bytes_max, "a stranger is told {} bytes", heard);
  if (refused || !handshake.done()) return;
  CHECK(!has_key, "done without the key");
  CHECK(!handshake.session_keys().has_value());
}

void run_sealed_frame(std::string_view input) {
  // A frame, its first byte the type, of someone who does not hold the session's keys.
  if (input.empty()) return;
  auto [theirs, inner] = make_memory_connections(with_room_for_tags({}));
  const auto ours = make_authenticated_connection(std::move(inner), {std::string(32, 's'), std::string(32, 'r')});
  const auto type = static_cast<std::uint8_t>(static_cast<unsigned char>(input[0]) & frame_type_max);
  CHECK(theirs->send(type, 0, std::string(input.substr(1))).ok());
  const auto received = ours->receive();
  CHECK(!received.ok(), "a frame that nobody has sealed was taken");
}

}  // namespace chorus::fuzz
