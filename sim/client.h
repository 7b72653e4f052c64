// All clients of the simulated front ends, and the judge of what they were given: every request ends exactly once, and
// none of its tokens is lost, repeated or changed.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "oracle.h"
#include "request/request.h"
#include "workload.h"

namespace chorus::sim {

struct Violations {
  std::uint64_t lost = 0;      // a token that never came
  std::uint64_t stuck = 0;     // an end that never came, of a request or a removal
  std::uint64_t repeated = 0;  // a position or an end that came twice, or after the end
  std::uint64_t changed = 0;   // not what the oracle says
  std::uint64_t other = 0;  // a bound was passed, a dead epoch was heard, a healthy replica was called faulty, a leak
  std::vector<std::string> first;  // the first few, in words
  std::uint64_t total() const { return lost + stuck + repeated + changed + other; }
};

class Clients {
 public:
  explicit Clients(const ToyModel* model) : model_(model) {}

  // `job` must outlive this.
  void submitted(RequestId id, const Job& job);
  // One accepted event. True: the front end has found a stop string and must abort this choice now.
  bool deliver(const TokenEvent& event);
  // The client hung up, or its front end died; nothing may come afterwards.
  void aborted(RequestId request);
  void front_end_died(std::uint32_t client);
  // No replica will ever work again: every request ends here.
  void cluster_is_over();

  // The end of the simulation: what is open now was lost.
  void close();

  std::size_t open() const { return open_; }
  std::uint64_t ended() const { return ended_; }
  std::uint64_t tokens() const { return tokens_; }
  std::uint64_t convicted() const { return convicted_; }
  std::uint64_t wrongly_convicted() const { return wrongly_convicted_; }
  const Job& job(RequestId request) const { return *clients_.at(request).job; }

  Violations& violations() { return violations_; }
  const Violations& violations() const { return violations_; }
  void report(std::uint64_t Violations::*kind, std::string what);

 private:
  struct Choice {
    std::vector<TokenId> tokens;
    FinishReason finish = FinishReason::none;
    std::optional<TokenId> stop_token;
  };
  struct Client {
    const Job* job = nullptr;
    std::vector<Choice> choices;
    std::uint32_t unfinished = 0;
    bool aborted = false;
    bool convicted = false;
    int prompt_logprobs = 0;  // times delivered
  };
  void take_token(const TokenEvent& event, Client& client, Choice& choice);
  void take_prompt_logprobs(const TokenEvent& event, Client& client);
  void end(Client& client);
  void compare(const Client& client, std::uint32_t index);

  const ToyModel* model_;
  std::unordered_map<RequestId, Client> clients_;
  Violations violations_;
  std::size_t open_ = 0;
  std::uint64_t ended_ = 0;
  std::uint64_t tokens_ = 0;
  std::uint64_t convicted_ = 0;
  std::uint64_t wrongly_convicted_ = 0;
};

}  // namespace chorus::sim
