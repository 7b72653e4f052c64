// For tests of what stands on a TextEngine: a tokenizer of bytes, a fleet that answers at once.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fleet/fleet.h"
#include "tokenizer/tokenizer.h"

namespace chorus {

class ByteStream final : public TokenStream {
 public:
  void begin_after(std::span<const std::int32_t>) override {}
  void push(std::int32_t token, std::string& settled) override { settled.push_back(static_cast<char>(token)); }
  std::string_view tentative() const override { return {}; }
  void finish(std::string&) override {}
};

// A tokenizer whose tokens are the bytes of the text.
class ByteTokenizer : public Tokenizer {
 public:
  Result<std::vector<std::int32_t>> encode(std::string_view text, bool) const override {
    std::vector<std::int32_t> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  Result<std::string> decode(std::span<const std::int32_t> ids, bool) const override {
    std::string text;
    for (const std::int32_t id : ids) text.push_back(static_cast<char>(id));
    return text;
  }
  std::unique_ptr<TokenStream> start_decoding(bool) const override { return std::make_unique<ByteStream>(); }
  std::int32_t vocab_size() const override { return 256; }
  std::optional<std::int32_t> token_to_id(std::string_view) const override { return std::nullopt; }
  std::optional<std::string> id_to_token(std::int32_t id) const override {
    return std::string(1, static_cast<char>(id));
  }
  bool is_special(std::int32_t) const override { return false; }
};

// A fleet of one that answers every request with the bytes of its answer.
class EchoFleet final : public Fleet {
 public:
  Result<RequestId> submit(Request request, std::optional<int> dp_rank) override {
    request.id = {0, ++submitted};
    ranks.push_back(dp_rank);
    prompts.push_back(request.prompt);
    max_tokens.push_back(request.params.max_tokens);
    seeds.push_back(request.params.seed);
    params.push_back(request.params);
    cache_salts.push_back(request.cache_salt);
    if (silent) return request.id;
    for (std::uint32_t choice = 0; choice < request.params.n; ++choice) {
      for (std::uint32_t i = 0; i < request.params.max_tokens && i < answer.size(); ++i) {
        TokenEvent event;
        event.request = request.id;
        event.choice = choice;
        event.position = i;
        event.token = answer[i];
        if (i + 1 == answer.size()) {
          event.finish = FinishReason::stop;
          event.stop_token = answer[i];
        } else if (i + 1 == request.params.max_tokens) {
          event.finish = FinishReason::length;
        }
        pending.push_back({event, 0});
      }
    }
    return request.id;
  }
  void abort(RequestId request) override { aborted.push_back(request); }
  void abort_choice(RequestId request, std::uint32_t) override { aborted.push_back(request); }
  std::uint64_t reset_prefix_caches() override { return ++resets; }
  bool prefix_caches_are_reset(std::uint64_t number) const override { return number <= resets_done; }
  Result<void> poll(int, std::vector<FleetEvent>* events) override {
    for (int i = 0; i < 3 && !pending.empty(); ++i) {
      events->push_back(pending.front());
      pending.pop_front();
    }
    return {};
  }
  FleetWait wait() override { return {}; }
  std::vector<ReplicaStatus> replicas() const override { return {}; }
  DispatcherCounters counters() const override { return {}; }
  FleetTimes times() const override { return {}; }

  std::string answer = "one two three";
  bool silent = false;
  std::uint64_t submitted = 0;
  std::uint64_t resets = 0, resets_done = 0;
  std::deque<FleetEvent> pending;
  std::vector<RequestId> aborted;
  std::vector<std::optional<int>> ranks;
  std::vector<std::uint64_t> seeds;
  std::vector<SamplingParams> params;
  std::vector<std::string> cache_salts;
  std::vector<std::vector<TokenId>> prompts;
  std::vector<std::uint32_t> max_tokens;
};

inline ModelConfig byte_model() {
  ModelConfig model;
  model.vocab_size = 256;
  model.max_position_embeddings = 64;
  return model;
}

}  // namespace chorus
