#include "protocol/messages.h"

#include <utility>

#include "net/archive.h"

namespace chorus {

using archive::decode_value;
using archive::encode_value;

std::string encode(const ModelConfig& message) {
  return encode_value(message);
}
std::string encode(const HelloMessage& message) {
  return encode_value(message);
}
std::string encode(const EngineStart& message) {
  return encode_value(message);
}
std::string encode(const WorkerStart& message) {
  return encode_value(message);
}
std::string encode(const ReadyMessage& message) {
  return encode_value(message);
}
std::string encode(const Request& message) {
  return encode_value(message);
}
std::string encode(const AbortMessage& message) {
  return encode_value(message);
}
std::string encode(const JoinMessage& message) {
  return encode_value(message);
}
std::string encode(const LoadMessage& message) {
  return encode_value(message);
}
std::string encode(const ClientMessage& message) {
  return encode_value(message);
}
std::string encode(const PrefixCacheResetMessage& message) {
  return encode_value(message);
}
std::string encode(const WaveMessage& message) {
  return encode_value(message);
}
std::string encode(const WelcomeMessage& message) {
  return encode_value(message);
}
std::string encode(const ContactMessage& message) {
  return encode_value(message);
}
std::string encode(const WorldMessage& message) {
  return encode_value(message);
}
std::string encode(const FatalMessage& message) {
  return encode_value(message);
}
std::string encode(const NewsMessage& message) {
  return encode_value(message);
}
std::string encode(const ClientNote& message) {
  return encode_value(message);
}
std::string encode(const ReplicaFaultMessage& message) {
  return encode_value(message);
}

std::vector<std::string> encode_events(std::span<const TokenEvent> events, std::size_t payload_bytes_max) {
  std::vector<std::string> payloads;
  std::size_t count = 0;
  WireWriter body;
  const auto finish_payload = [&] {
    WireWriter payload;
    payload.count(count);
    payload.append(body.bytes());
    payloads.push_back(payload.take());
    count = 0;
    body = WireWriter();
  };
  for (const TokenEvent& event : events) {
    const std::string encoded = encode_value(event);
    if (count > 0 && body.size() + encoded.size() + sizeof(std::uint32_t) > payload_bytes_max) finish_payload();
    body.append(encoded);
    ++count;
  }
  if (count > 0) finish_payload();
  return payloads;
}

std::vector<std::size_t> refuse_oversized(std::span<TokenEvent> events, std::size_t payload_bytes_max) {
  std::vector<std::size_t> refused;
  for (std::size_t i = 0; i < events.size(); ++i) {
    const std::size_t bytes = encode_value(events[i]).size() + sizeof(std::uint32_t);
    if (bytes <= payload_bytes_max) continue;
    TokenEvent end;
    end.request = events[i].request;
    end.choice = events[i].choice;
    end.position = events[i].position;
    end.finish = FinishReason::error;
    end.error =
        fmt::format("the logprobs of one step take {} bytes, at most {} can be sent: ask for fewer prompt_logprobs",
                    bytes, payload_bytes_max);
    events[i] = std::move(end);
    refused.push_back(i);
  }
  return refused;
}

Result<HelloMessage> decode_hello(std::string_view payload) {
  return decode_value<HelloMessage>(payload, "HELLO");
}
Result<EngineStart> decode_engine_start(std::string_view payload) {
  return decode_value<EngineStart>(payload, "CONFIG");
}
Result<WorkerStart> decode_worker_start(std::string_view payload) {
  return decode_value<WorkerStart>(payload, "CONFIG");
}
Result<ReadyMessage> decode_ready(std::string_view payload) {
  return decode_value<ReadyMessage>(payload, "READY");
}
Result<Request> decode_request(std::string_view payload) {
  return decode_value<Request>(payload, "ADD");
}
Result<AbortMessage> decode_abort(std::string_view payload) {
  return decode_value<AbortMessage>(payload, "ABORT");
}
Result<JoinMessage> decode_join(std::string_view payload) {
  return decode_value<JoinMessage>(payload, "JOIN");
}
Result<LoadMessage> decode_load(std::string_view payload) {
  return decode_value<LoadMessage>(payload, "LOAD");
}
Result<ClientMessage> decode_client(std::string_view payload) {
  return decode_value<ClientMessage>(payload, "CLIENT");
}
Result<PrefixCacheResetMessage> decode_prefix_cache_reset(std::string_view payload) {
  return decode_value<PrefixCacheResetMessage>(payload, "PREFIX_CACHE_RESET");
}
Result<WaveMessage> decode_wave(std::string_view payload) {
  return decode_value<WaveMessage>(payload, "WAVE");
}
Result<WelcomeMessage> decode_welcome(std::string_view payload) {
  return decode_value<WelcomeMessage>(payload, "WELCOME");
}
Result<ContactMessage> decode_contact(std::string_view payload) {
  return decode_value<ContactMessage>(payload, "CONTACT");
}
Result<WorldMessage> decode_world(std::string_view payload) {
  return decode_value<WorldMessage>(payload, "WORLD");
}
Result<FatalMessage> decode_fatal(std::string_view payload) {
  return decode_value<FatalMessage>(payload, "FATAL");
}
Result<NewsMessage> decode_news(std::string_view payload) {
  return decode_value<NewsMessage>(payload, "NEWS");
}
Result<ClientNote> decode_note(std::string_view payload) {
  return decode_value<ClientNote>(payload, "NOTE");
}
Result<ReplicaFaultMessage> decode_replica_fault(std::string_view payload) {
  return decode_value<ReplicaFaultMessage>(payload, "REPLICA_FAULT");
}
Result<std::vector<TokenEvent>> decode_events(std::string_view payload) {
  return decode_value<std::vector<TokenEvent>>(payload, "EVENTS");
}

}  // namespace chorus
