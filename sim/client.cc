#include "client.h"

#include <fmt/format.h>

#include <algorithm>

namespace chorus::sim {
namespace {

constexpr std::size_t reported_max = 5;

}  // namespace

void Clients::report(std::uint64_t Violations::*kind, std::string what) {
  ++(violations_.*kind);
  if (violations_.first.size() < reported_max) violations_.first.push_back(std::move(what));
}

void Clients::submitted(RequestId id, const Job& job) {
  Client client;
  client.job = &job;
  client.unfinished = job.request.params.n;
  client.choices.resize(client.unfinished);
  if (!clients_.emplace(id, std::move(client)).second) {
    report(&Violations::other, fmt::format("the id {} was given twice", id));
    return;
  }
  ++open_;
}

bool Clients::deliver(const TokenEvent& event) {
  Client& client = clients_.at(event.request);
  if (event.choice >= client.choices.size()) {
    report(&Violations::other, fmt::format("request {} has no choice {}", event.request, event.choice));
    return false;
  }
  Choice& choice = client.choices[event.choice];
  if (client.aborted || choice.finish != FinishReason::none) {
    report(&Violations::repeated,
           fmt::format("request {} choice {}: something after its end", event.request, event.choice));
    return false;
  }
  take_prompt_logprobs(event, client);
  if (event.token) take_token(event, client, choice);
  bool stop_string = false;
  if (event.finish != FinishReason::none) {
    choice.finish = event.finish;
    choice.stop_token = event.stop_token;
    client.convicted = client.convicted || event.error.find("was in flight when") != std::string::npos;
  } else if (const auto stop = client.job->stops.find(event.choice); stop != client.job->stops.end()) {
    stop_string = choice.tokens.size() >= stop->second;
    if (stop_string) choice.finish = FinishReason::abort;
  }
  if (choice.finish != FinishReason::none && --client.unfinished == 0) end(client);
  return stop_string;
}

void Clients::take_token(const TokenEvent& event, Client& client, Choice& choice) {
  ++tokens_;
  const std::size_t due = choice.tokens.size();
  if (event.position != due) {
    report(event.position < due ? &Violations::repeated : &Violations::lost,
           fmt::format("request {} choice {}: position {} came, {} was due", event.request, event.choice,
                       event.position, due));
    return;
  }
  choice.tokens.push_back(*event.token);
  const bool wanted = client.job->request.params.logprobs.has_value();
  if (wanted != event.logprobs.has_value() || (wanted && event.logprobs->chosen.token != *event.token)) {
    report(&Violations::changed, fmt::format("request {} choice {} position {}: the logprobs are not those asked for",
                                             event.request, event.choice, event.position));
  }
}

void Clients::take_prompt_logprobs(const TokenEvent& event, Client& client) {
  if (event.prompt_logprobs.empty()) return;
  if (++client.prompt_logprobs > 1) {
    report(&Violations::repeated, fmt::format("request {}: prompt logprobs came again", event.request));
  }
  const std::vector<TokenId>& prompt = client.job->request.prompt;
  bool same = event.prompt_logprobs.size() + 1 == prompt.size();
  for (std::size_t i = 0; same && i + 1 < prompt.size(); ++i) {
    same = event.prompt_logprobs[i].chosen.token == prompt[i + 1];
  }
  if (!same) report(&Violations::changed, fmt::format("request {}: prompt logprobs of another prompt", event.request));
}

void Clients::aborted(RequestId request) {
  Client& client = clients_.at(request);
  if (client.unfinished == 0 || client.aborted) return;
  client.aborted = true;
  end(client);
}

void Clients::front_end_died(std::uint32_t front_end) {
  for (auto& [id, client] : clients_) {
    if (id.client == front_end) aborted(id);
  }
}

void Clients::cluster_is_over() {
  for (auto& [id, client] : clients_) aborted(id);
}

// All choices have ended, or the client hung up: compare with the oracle.
void Clients::end(Client& client) {
  --open_;
  ++ended_;
  const Job& job = *client.job;
  convicted_ += client.convicted ? 1 : 0;
  wrongly_convicted_ += client.convicted && !job.poison ? 1 : 0;
  for (std::uint32_t index = 0; index < job.request.params.n; ++index) compare(client, index);
  if (client.aborted || client.convicted) return;
  const bool first_came = !client.choices[0].tokens.empty();
  if (job.request.params.prompt_logprobs && first_came && job.request.prompt.size() > 1 &&
      client.prompt_logprobs == 0) {
    report(&Violations::lost, fmt::format("job {}: no prompt logprobs", job.number));
  }
}

void Clients::compare(const Client& client, std::uint32_t index) {
  const Job& job = *client.job;
  const Choice& choice = client.choices[index];
  const auto changed = [&](const char* what) {
    report(&Violations::changed, fmt::format("job {} choice {}: {}", job.number, index, what));
  };
  if (job.refused) {
    const bool hung_up = client.aborted && choice.finish == FinishReason::none;
    if (!choice.tokens.empty() || (choice.finish != FinishReason::error && !hung_up)) changed("was to be refused");
    return;
  }
  const ExpectedChoice expected = expected_choice(*model_, job.request, index);
  const std::size_t given = choice.tokens.size();
  if (given > expected.tokens.size() ||
      !std::equal(choice.tokens.begin(), choice.tokens.end(), expected.tokens.begin())) {
    return changed("other tokens than the oracle's");
  }
  const bool cut = choice.finish == FinishReason::abort || (client.aborted && choice.finish == FinishReason::none) ||
                   (client.convicted && choice.finish == FinishReason::error);
  if (cut) return;
  if (job.poison) return changed("kills replicas and was not ended for it");
  if (given != expected.tokens.size()) {
    report(&Violations::lost, fmt::format("job {} choice {}: ended after {} of {} tokens", job.number, index, given,
                                          expected.tokens.size()));
  } else if (choice.finish != expected.finish || choice.stop_token != expected.stop_token) {
    changed("ended for another reason than the oracle's");
  }
}

void Clients::close() {
  std::vector<RequestId> lost;
  for (const auto& [id, client] : clients_) {
    if (client.unfinished > 0 && !client.aborted) lost.push_back(id);
  }
  std::sort(lost.begin(), lost.end());
  for (const RequestId id : lost) report(&Violations::stuck, fmt::format("request {} never ended", id));
}

}  // namespace chorus::sim
