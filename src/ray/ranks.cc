#include "ray/ranks.h"

#include <poll.h>

#include <algorithm>

#include "ray/cluster.h"

namespace chorus::ray_launcher {
namespace {

constexpr int losses_max = 5;
constexpr int status_interrupted = 130;  // of a rank's node that was told to end (SIGTERM), though not by the head
constexpr auto stable_after = std::chrono::seconds(60);
constexpr auto backoff_first = std::chrono::milliseconds(100);
constexpr auto backoff_max = std::chrono::milliseconds(10'000);
constexpr auto look_at_nodes_every = std::chrono::seconds(5);
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

std::string node_resource(const std::string& address) {
  return "node:" + address;
}

}  // namespace

Ranks::Ranks(const Json& place_message, std::string cluster_address, Channel* channel)
    : cluster_address_(std::move(cluster_address)), channel_(channel) {
  for (const auto& [name, amount] : place_message.at("resources").items()) {
    resources_[name] = amount.get<double>();
    resources_text_ += (resources_text_.empty() ? "" : ", ") + name + " " + amount.dump();
  }
  for (const Json& item : place_message.at("ranks")) {
    Rank rank;
    rank.number = item.at("rank");
    rank.node = item.at("node");
    rank.command = item.at("command").get<std::vector<std::string>>();
    ranks_.push_back(std::move(rank));
  }
  for (Rank& rank : ranks_) place(&rank);
}

Ranks::~Ranks() {
  for (Rank& rank : ranks_) give_back(&rank);
}

// All of a rank's workers share a node's memory, so a rank is one bundle.
void Ranks::place(Rank* rank) {
  std::unordered_map<std::string, double> bundle = resources_;
  if (!rank->node.empty()) bundle[node_resource(rank->node)] = 0.001;
  rank->group = ray::CreatePlacementGroup(
      {"chorus_dp_rank_" + std::to_string(rank->number), {bundle}, ray::PlacementStrategy::STRICT_PACK});
  start_actor(rank);
}

void Ranks::start_actor(Rank* rank) {
  rank->actor = ray::Actor(&RankActor::Create)
                    .SetResources(resources_)
                    .SetMaxRestarts(-1)
                    .SetPlacementGroup(rank->group, 0)
                    .Remote(rank->command);
  rank->lost_at = Clock::now();
  rank->warn_at = rank->lost_at + warn_every;
  ask(rank);
}

// The answer comes when Ray has placed the actor.
void Ranks::ask(Rank* rank) {
  rank->report = rank->actor.Task(&RankActor::Report).Remote(rank->placed);
  rank->asked = true;
}

void Ranks::step(int timeout_ms) {
  std::vector<ray::ObjectRef<std::string>> reports;
  for (const Rank& rank : ranks_) {
    if (rank.asked) reports.push_back(rank.report);
  }
  if (reports.empty()) {
    ::poll(nullptr, 0, timeout_ms);
  } else {
    // Those that are there are found below: an answer is never taken twice.
    const auto result = ray::Wait(reports, 1, timeout_ms);
    for (const auto& ready : result.ready) {
      for (Rank& rank : ranks_) {
        if (rank.asked && rank.report == ready) guard(&rank, [&] { take_report(&rank); });
      }
    }
  }
  const auto now = Clock::now();
  for (Rank& rank : ranks_) guard(&rank, [&] { look_after(&rank, now); });
}

// What Ray throws over one rank, while its store is slow or starts again, is no end of the others.
template <typename Action>
void Ranks::guard(Rank* rank, const Action& action) {
  try {
    action();
  } catch (const std::exception& error) {
    rank->asked = false;
    rank->retry_at = Clock::now() + backoff_max;
    if (++rank->losses > losses_max) return fail(rank, "Ray: " + words_of(error));
    channel_->send(
        {{"type", "log"},
         {"text", "Worker rank " + std::to_string(rank->number) + " is tried again: Ray: " + words_of(error)}});
  }
}

void Ranks::take_report(Rank* rank) {
  rank->asked = false;
  Json report;
  try {
    report = Json::parse(*rank->report.Get(), nullptr, false);
  } catch (const std::exception& error) {
    return lose(rank, words_of(error));
  }
  if (!report.is_object()) return lose(rank, "the process of its actor is gone");
  if (!rank->placed) {
    rank->placed = rank->answered = true;
    rank->placed_at = Clock::now();
    channel_->send({{"type", "placed"}, {"rank", rank->number}, {"node", report.value("node", "")}});
    return ask(rank);
  }
  const int status = report.value("status", 1);
  const int signal = report.value("signal", 0);
  if (status == 0 && signal == 0) {  // the head has told it to end
    rank->over = true;
    return;
  }
  std::string words = report.value("last_words", "");
  while (!words.empty() && words.back() == '\n') words.pop_back();
  words = words.substr(words.find_last_of('\n') + 1);
  if (signal != 0 || status == status_interrupted) {
    // Its actor lives: Ray starts nothing again by itself.
    rank->actor.Kill(false);
    return lose(rank, signal != 0 ? "its node was killed by signal " + std::to_string(signal)
                                  : std::string("its node was interrupted"));
  }
  fail(rank, words.empty() ? "its node ended with status " + std::to_string(status) : words);
}

void Ranks::lose(Rank* rank, const std::string& why) {
  const auto now = Clock::now();
  if (rank->placed && now - rank->placed_at >= stable_after) rank->losses = 0;
  if (rank->placed) channel_->send({{"type", "lost"}, {"rank", rank->number}, {"why", why}});
  const bool never_answered = !rank->answered;
  rank->placed = rank->answered = false;
  if (rank->losses >= losses_max)
    return fail(rank, "given up after " + std::to_string(rank->losses) + " restarts: " + why);
  const auto backoff = std::min<Clock::duration>(backoff_first * (1 << rank->losses++), backoff_max);
  rank->retry_at = now + backoff;
  if (never_answered) {  // an actor that Ray has given up answers nothing for ever
    rank->actor.Kill(true);
    start_actor(rank);
    rank->asked = false;
  }
  rank->lost_at = now;
  rank->warn_at = now + warn_every;
}

void Ranks::fail(Rank* rank, const std::string& why) {
  rank->over = true;
  rank->asked = false;
  channel_->send({{"type", "failed"}, {"rank", rank->number}, {"why", why.substr(0, words_max)}});
  give_back(rank);
}

// Best effort: Ray does both when this program is gone.
void Ranks::give_back(Rank* rank) {
  try {
    if (!rank->actor.ID().empty()) rank->actor.Kill(true);
    if (!rank->group.Empty()) ray::RemovePlacementGroup(rank->group.GetID());
    rank->group = {};
  } catch (const std::exception&) {
    return;
  }
}

// A store that does not answer says nothing about its nodes.
bool Ranks::has_left(const std::string& node) const {
  try {
    return !look_at_cluster(cluster_address_).has(node);
  } catch (const std::exception&) {
    return false;
  }
}

// What waits for time: the back-off of a lost rank, and a node that a rank is held to and that does not come back.
void Ranks::look_after(Rank* rank, Clock::time_point now) {
  if (rank->over || rank->placed) return;
  if (!rank->asked) {
    if (now >= rank->retry_at) ask(rank);
    return;
  }
  if (!rank->node.empty() && rank->losses > 0 && now - rank->lost_at >= look_at_nodes_every) {
    rank->lost_at = now;
    if (has_left(rank->node)) {
      channel_->send({{"type", "log"},
                      {"text", "Node " + rank->node + " has left the Ray cluster; worker rank " +
                                   std::to_string(rank->number) + " may go to any other"}});
      give_back(rank);
      rank->node.clear();
      return place(rank);
    }
  }
  if (now < rank->warn_at) return;
  rank->warn_at = now + warn_every;
  channel_->send({{"type", "log"},
                  {"text", "Worker rank " + std::to_string(rank->number) + " waits for Ray to place it: it needs " +
                               resources_text_ + (rank->node.empty() ? "" : " on node " + rank->node)}});
}

}  // namespace chorus::ray_launcher
