// A group of ranks that compute one thing together, as a value that is handed down: layers call its collectives and are
// written the same way for one rank and for eight. Every call has a deadline (given when the group is made); a dead peer is
// an error in all ranks, never a hang.
//
// Thread rule: a Group object belongs to one rank and is called by one thread of it; all ranks call the same collectives in
// the same order.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"

namespace chorus {

class Group {
 public:
  virtual ~Group() = default;
  int rank() const { return rank_; }
  int size() const { return size_; }

  // data[i] becomes the sum over ranks of data[i], added by the balanced binary tree over rank order,
  // ((0+1)+(2+3))+((4+5)+(6+7)): the tree of design.md section 1, rule 2. size() is a power of two. Every rank ends with the
  // same bits.
  virtual Result<void> all_reduce_tree(std::span<float> data) = 0;
  // Rank r's `in` goes to out[r * in.size() ..) on every rank. in.size() is the same on all ranks.
  virtual Result<void> all_gather(std::span<const float> in, std::span<float> out) = 0;
  virtual Result<void> barrier() = 0;

 protected:
  Group(int rank, int size) : rank_(rank), size_(size) {}

 private:
  int rank_;
  int size_;
};

// The group of one: every collective is the identity.
std::unique_ptr<Group> make_self_group();

// `size` groups of one world whose ranks are threads of this process; element r is handed to the thread of rank r. The
// memory of the ranks is read directly. A rank that does not come within `timeout_ms` is an error in the others.
std::vector<std::unique_ptr<Group>> make_thread_groups(int size, int timeout_ms);

}  // namespace chorus
