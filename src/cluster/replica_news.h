// What the parent tells its front ends of a replica, and what they tell the parent. Plain values. Each front end gets
// all news in order, beginning with what each replica is when the front end comes.
#pragma once

#include <cstdint>
#include <vector>

#include "cluster/placement.h"
#include "request/request.h"

namespace chorus {

struct ReplicaNews {
  enum class State : std::uint8_t {
    ready,     // this incarnation takes requests (also: again, after it was draining)
    draining,  // it gets nothing new; with `move` what it has goes to others as well
    lent,      // `client` alone may give it requests, to find out which of them kills replicas; it has no others
    died,      // this incarnation will never be heard again; another may be ready later
    removed,   // died, and none follows
  };
  Placement replica;
  State state = State::ready;
  bool move = false;         // draining
  ClientId client = 0;       // lent
  int because_of = -1;       // died: because this replica, which it stepped together with, did; -1: by itself
  std::uint32_t number = 0;  // draining: of this draining, which an answer names
  bool operator==(const ReplicaNews&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) {
    return visit(self.replica, self.state, self.move, self.client, self.because_of, self.number);
  }
};
constexpr auto enumeration_of(ReplicaNews::State) {
  return Enumeration{"a replica's state", ReplicaNews::State::removed};
}

struct ClientNote {
  enum class Kind : std::uint8_t {
    drained,      // nothing of mine is on the draining replica, and nothing is on its way there
    wants_alone,  // lend me a replica
    returned,     // I need the lent one no longer
  };
  Kind kind = Kind::drained;
  Placement replica;         // drained, returned
  std::uint32_t number = 0;  // drained: the draining's
  bool operator==(const ClientNote&) const = default;
  static constexpr auto fields(auto& self, auto&& visit) { return visit(self.kind, self.replica, self.number); }
};
constexpr auto enumeration_of(ClientNote::Kind) {
  return Enumeration{"a front end's note", ClientNote::Kind::returned};
}

}  // namespace chorus
