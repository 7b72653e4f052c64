// The ranks of a deployment in Ray: a placement group each, of a bundle for each of the rank's parts, and an actor in
// each bundle, watched for as long as this object lives. A part:
//
//   waiting ──Ray has placed its actor──> running ──its process is gone──> waiting (with a new actor in its bundle,
//      │                                     │                     which Ray moves if the bundle's node is gone too)
//      └───── six times in a row, or the part's node gave up ─────> over, and with it the rank
//
// An actor is never restarted: its handle means one process, so nothing that is said of it can be meant for the next.
#pragma once

#include <chrono>
#include <string>
#include <unordered_map>
#include <vector>

#include "ray/channel.h"
#include "ray/node_watch.h"
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
  struct Part {
    int number = 0;    // also of its bundle
    std::string node;  // the address that it is held to; empty: any that has room
    std::vector<std::string> command;
    ray::ActorHandle<RankActor> actor;
    ray::ObjectRef<std::string> report;
    bool asked = false;   // `report` is to come; else a new actor is started at retry_at
    bool placed = false;  // it runs, as far as is known
    bool over = false;
    int losses = 0;  // in a row
    Clock::time_point placed_at{}, waits_since{}, retry_at{}, warn_at{};
  };
  struct Rank {
    int number = 0;
    ray::PlacementGroup group;
    std::vector<Part> parts;
  };

  void place(Rank* rank);
  void start_actor(Rank* rank, Part* part);
  void ask(Part* part);
  void take_report(Rank* rank, Part* part);
  void lose(Rank* rank, Part* part, const std::string& why);
  void fail(Rank* rank, Part* part, const std::string& why);
  void kill(Part* part);
  void give_back(Rank* rank);
  void look_after(Rank* rank, Part* part, Clock::time_point now);
  template <typename Action>
  void guard(Rank* rank, Part* part, const Action& action);
  void tell(const char* type, const Rank& rank, const Part& part, const char* key, const std::string& text);
  void warn(const Rank& rank, const Part& part, const std::string& text);

  std::unordered_map<std::string, double> resources_;  // of a part
  std::string resources_text_;                         // "CPU 2"
  std::string only_here_;                              // why a part may not be on another machine; empty: it may
  Channel* channel_;
  NodeWatch nodes_;
  std::vector<Rank> ranks_;
};

}  // namespace chorus::ray_launcher
