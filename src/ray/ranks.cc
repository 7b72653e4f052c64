#include "ray/ranks.h"

#include <poll.h>
#include <signal.h>

#include <algorithm>

namespace chorus::ray_launcher {
namespace {

constexpr int losses_max = 5;
constexpr int status_interrupted = 130;  // of a rank's node that was told to end (SIGTERM), though not by the head
constexpr auto stable_after = std::chrono::seconds(60);
constexpr auto backoff_first = std::chrono::milliseconds(100);
constexpr auto backoff_max = std::chrono::milliseconds(10'000);
constexpr auto waited_for_at_least = std::chrono::seconds(5);  // a node that a part is held to
constexpr auto warn_every = std::chrono::seconds(30);
constexpr std::size_t words_max = 400;

// Ray's exceptions carry serialised bytes around their text.
std::string words_of(const std::exception& error) {
  const std::string bytes = error.what();
  std::string longest;
  for (std::size_t at = 0; at < bytes.size();) {
    std::size_t end = at;
    while (end < bytes.size() && bytes[end] >= ' ' && bytes[end] <= '~') ++end;
    if (end - at > longest.size()) longest = bytes.substr(at, end - at);
    at = end + 1;
  }
  return longest.substr(0, words_max);
}

// Best effort: Ray does it too when this program is gone.
template <typename Action>
void try_to(const Action& action) {
  try {
    action();
  } catch (const std::exception&) {
    return;
  }
}

std::string node_resource(const std::string& address) {
  return "node:" + address;
}

}  // namespace

Ranks::Ranks(const Json& place_message, std::string cluster_address, Channel* channel)
    : only_here_(place_message.at("only_here")), channel_(channel), nodes_(std::move(cluster_address)) {
  for (const auto& [name, amount] : place_message.at("resources").items()) {
    resources_[name] = amount.get<double>();
    resources_text_ += (resources_text_.empty() ? "" : ", ") + name + " " + amount.dump();
  }
  for (const Json& item : place_message.at("ranks")) {
    Rank rank;
    rank.number = item.at("rank");
    for (const Json& of_part : item.at("parts")) {
      Part part;
      part.number = static_cast<int>(rank.parts.size());
      part.node = of_part.at("node");
      part.command = of_part.at("command").get<std::vector<std::string>>();
      rank.parts.push_back(std::move(part));
    }
    ranks_.push_back(std::move(rank));
  }
  for (Rank& rank : ranks_) place(&rank);
}

Ranks::~Ranks() {
  for (Rank& rank : ranks_) give_back(&rank);
}

// What shares a node's memory is one part, and so one bundle. Parts talk over the network: few nodes are better.
void Ranks::place(Rank* rank) {
  std::vector<std::unordered_map<std::string, double>> bundles;
  for (const Part& part : rank->parts) {
    bundles.push_back(resources_);
    if (!part.node.empty()) bundles.back()[node_resource(part.node)] = 0.001;
  }
  rank->group = ray::CreatePlacementGroup(
      {"chorus_dp_rank_" + std::to_string(rank->number), std::move(bundles), ray::PlacementStrategy::PACK});
  for (Part& part : rank->parts) start_actor(rank, &part);
}

// Its first answer comes when Ray has placed it.
void Ranks::start_actor(Rank* rank, Part* part) {
  part->actor = ray::Actor(&RankActor::Create)
                    .SetResources(resources_)
                    .SetPlacementGroup(rank->group, part->number)
                    .Remote(part->command, network_of_this_process(), only_here_);
  part->waits_since = Clock::now();
  part->warn_at = part->waits_since + warn_every;
  ask(part);
}

void Ranks::ask(Part* part) {
  part->report = part->actor.Task(&RankActor::Report).Remote(part->placed);
  part->asked = true;
}

void Ranks::step(int timeout_ms) {
  std::vector<ray::ObjectRef<std::string>> reports;
  for (const Rank& rank : ranks_) {
    for (const Part& part : rank.parts) {
      if (part.asked) reports.push_back(part.report);
    }
  }
  ray::WaitResult<std::string> answers;
  if (reports.empty()) {
    ::poll(nullptr, 0, timeout_ms);
  } else {
    answers = ray::Wait(reports, 1, timeout_ms);
  }
  const auto now = Clock::now();
  for (Rank& rank : ranks_) {
    for (Part& part : rank.parts) {
      const auto is_there = [&](const auto& ready) { return ready == part.report; };
      const bool answered = part.asked && std::any_of(answers.ready.begin(), answers.ready.end(), is_there);
      if (answered) guard(&rank, &part, [&] { take_report(&rank, &part); });
      guard(&rank, &part, [&] { look_after(&rank, &part, now); });
    }
  }
}

// What Ray throws over one part, while its store is slow or starts again, is no end of the others.
template <typename Action>
void Ranks::guard(Rank* rank, Part* part, const Action& action) {
  try {
    action();
  } catch (const std::exception& error) {
    const bool told = part->placed;
    lose(rank, part, "Ray: " + words_of(error));
    if (part->over) return;
    part->retry_at = Clock::now() + backoff_max;
    if (!told) warn(*rank, *part, "is tried again: Ray: " + words_of(error));
  }
}

void Ranks::take_report(Rank* rank, Part* part) {
  part->asked = false;
  Json report;
  try {
    report = Json::parse(*part->report.Get(), nullptr, false);
  } catch (const std::exception& error) {
    return lose(rank, part, words_of(error));
  }
  if (!report.is_object()) return lose(rank, part, "the process of its actor is gone");
  if (!part->placed) {
    part->placed = true;
    part->placed_at = Clock::now();
    tell("placed", *rank, *part, "node", report.value("node", ""));
    return ask(part);
  }
  const int status = report.value("status", 1);
  const int signal = report.value("signal", 0);
  if (status == 0 && signal == 0) {  // the head has told it to end
    part->over = true;
    return;
  }
  std::string words = report.value("last_words", "");
  while (!words.empty() && words.back() == '\n') words.pop_back();
  words = words.substr(words.find_last_of('\n') + 1);
  if (signal == SIGABRT && !words.empty()) return lose(rank, part, "its node aborted: " + words);
  if (signal != 0) return lose(rank, part, "its node was killed by signal " + std::to_string(signal));
  if (status == status_interrupted) return lose(rank, part, "its node was interrupted");
  fail(rank, part, words.empty() ? "its node ended with status " + std::to_string(status) : words);
}

void Ranks::lose(Rank* rank, Part* part, const std::string& why) {
  const auto now = Clock::now();
  if (part->placed && now - part->placed_at >= stable_after) part->losses = 0;
  if (part->placed) tell("lost", *rank, *part, "why", why);
  part->placed = part->asked = false;
  // It may live: its child alone is gone, or it was not reached for a moment.
  kill(part);
  if (part->losses >= losses_max)
    return fail(rank, part, "given up after " + std::to_string(part->losses) + " restarts: " + why);
  const auto backoff = std::min<Clock::duration>(backoff_first * (1 << part->losses++), backoff_max);
  part->retry_at = now + backoff;
}

// One part cannot work without the others.
void Ranks::fail(Rank* rank, Part* part, const std::string& why) {
  for (Part& each : rank->parts) {
    each.over = true;
    each.asked = false;
  }
  tell("failed", *rank, *part, "why", why.substr(0, words_max));
  give_back(rank);
}

void Ranks::kill(Part* part) {
  if (!part->actor.ID().empty()) try_to([&] { part->actor.Kill(true); });
}

void Ranks::give_back(Rank* rank) {
  for (Part& part : rank->parts) kill(&part);
  if (!rank->group.Empty()) try_to([&] { ray::RemovePlacementGroup(rank->group.GetID()); });
  rank->group = {};
}

// What waits for time: the back-off of a lost part, and a node that a part is held to and that does not come back.
void Ranks::look_after(Rank* rank, Part* part, Clock::time_point now) {
  if (part->over || part->placed) return;
  if (!part->asked) {
    if (now < part->retry_at) return;
    return rank->group.Empty() ? place(rank) : start_actor(rank, part);
  }
  const bool held = !part->node.empty() && part->losses > 0 && now - part->waits_since >= waited_for_at_least;
  if (held && nodes_.has_left(part->node, part->waits_since)) {
    warn(*rank, *part, "may go to any node: its node " + part->node + " has left the Ray cluster");
    give_back(rank);
    for (Part& each : rank->parts) {
      if (each.placed) tell("lost", *rank, each, "why", "its rank moves");
      each.placed = false;
      each.node.clear();
    }
    return place(rank);
  }
  if (now < part->warn_at) return;
  part->warn_at = now + warn_every;
  warn(*rank, *part,
       "waits for Ray to place it: it needs " + resources_text_ + (part->node.empty() ? "" : " on node " + part->node));
}

void Ranks::tell(const char* type, const Rank& rank, const Part& part, const char* key, const std::string& text) {
  channel_->send({{"type", type}, {"rank", rank.number}, {"part", part.number}, {key, text}});
}

void Ranks::warn(const Rank& rank, const Part& part, const std::string& text) {
  const std::string of_part = rank.parts.size() > 1 ? " part " + std::to_string(part.number) : "";
  channel_->send({{"type", "log"}, {"text", "Worker rank " + std::to_string(rank.number) + of_part + " " + text}});
}

}  // namespace chorus::ray_launcher
