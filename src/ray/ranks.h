// The ranks of a deployment in Ray: a placement group and an actor each, watched for as long as this object lives.
//
//   waiting ──Ray has placed it──> running ──its process is gone──> waiting (Ray starts the actor again, elsewhere if
//   the
//      │                              │                              node is gone too)
//      └──────── six times in a row, or the rank's node gave up ─────> over
#pragma once

#include <chrono>
#include <string>
#include <unordered_map>
#include <vector>

#include "ray/channel.h"
#include "ray/rank_actor.h"

namespace chorus::ray_launcher {

class Ranks {
 public:
  // `place`: the message of that name. `cluster_address`: HOST:PORT. Throws what Ray throws.
  Ranks(const Json& place, std::string cluster_address, Channel* channel);
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;
  ~Ranks();  // kills the actors, and gives their places back

  // Waits at most that long for news, acts on it and tells it.
  void step(int timeout_ms);

 private:
  using Clock = std::chrono::steady_clock;
  struct Rank {
    int number = 0;
    std::string node;  // the address that it is held to; empty: any that has room
    std::vector<std::string> command;
    ray::PlacementGroup group;
    ray::ActorHandle<RankActor> actor;
    ray::ObjectRef<std::string> report;
    bool asked = false;   // `report` is to come
    bool placed = false;  // it runs, as far as is known
    bool over = false;
    int losses = 0;        // in a row
    bool answered = true;  // since the last loss
    Clock::time_point placed_at{}, lost_at{}, retry_at{}, warn_at{};
  };

  void place(Rank* rank);
  void start_actor(Rank* rank);
  void ask(Rank* rank);
  void take_report(Rank* rank);
  void lose(Rank* rank, const std::string& why);
  void fail(Rank* rank, const std::string& why);
  void give_back(Rank* rank);
  template <typename Action>
  void guard(Rank* rank, const Action& action);
  bool has_left(const std::string& node) const;
  void look_after(Rank* rank, Clock::time_point now);

  std::unordered_map<std::string, double> resources_;  // of a rank
  std::string resources_text_;                         // "CPU 2"
  std::string cluster_address_;
  Channel* channel_;
  std::vector<Rank> ranks_;
};

}  // namespace chorus::ray_launcher
