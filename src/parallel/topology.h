// Rank <-> coordinates of one world. Rank order is dp, pp, cp, tp with tp fastest (interface.md): rank =
// ((dp * pp_size + pp) * cp_size + cp) * tp_size + tp. A value; nothing process-wide.
#pragma once

#include <vector>

#include "base/result.h"
#include "config/engine_config.h"

namespace chorus {

struct Coordinates {
  int dp = 0, pp = 0, cp = 0, tp = 0;
  bool operator==(const Coordinates&) const = default;
};

class Topology {
 public:
  // Fails when dp x tp x pp x cp is not `world_size`; the message has both numbers.
  static Result<Topology> create(const ParallelConfig& parallel, int world_size);

  int world_size() const { return dp_ * pp_ * cp_ * tp_; }
  Coordinates coordinates_of(int rank) const;
  int rank_of(const Coordinates& at) const;
  // The ranks that differ from `rank` in one coordinate only, ascending in it, `rank` included.
  std::vector<int> tp_ranks(int rank) const;
  std::vector<int> pp_ranks(int rank) const;
  std::vector<int> dp_ranks(int rank) const;
  std::vector<int> cp_ranks(int rank) const;
  // The workers of the replica that `rank` belongs to: neighbours in the world.
  std::vector<int> replica_ranks(int rank) const;
  // Experts live on all dp x tp ranks of one pipeline stage (and context rank), in rank order.
  std::vector<int> ep_ranks(int rank) const;

 private:
  Topology(int dp, int pp, int cp, int tp) : dp_(dp), pp_(pp), cp_(cp), tp_(tp) {}
  int dp_, pp_, cp_, tp_;
};

}  // namespace chorus
