// Some ranks of a world that compute one thing together, as a value that is handed down: layers call its collectives
// and are written the same way for one rank and for eight. Several groups (tp, pp, ep, the whole replica) share one
// transport; making one is free and needs no communication, so independent sets of groups live side by side in one
// process.
//
// Every rank of the group calls the same collectives in the same order, with sizes that agree. Calls fail as
// Transport's do: by the deadline of the transport at the latest, in all ranks within a second once one is dead. A
// failed call leaves the results undefined and the world broken.
//
// Thread rule: a Group belongs to one rank and is called by one thread of it. Two groups of one rank are called by the
// same thread.
//
// Each collective has its own file. Sums of floats follow the tree of design.md section 1, rule 2, and are the
// same bits on every rank.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "parallel/transport/transport.h"

namespace chorus {

class Group {
 public:
  // `members`: ranks of the transport in group order, this one among them; the transport outlives the group. A null
  // transport is the world of one.
  Group(std::shared_ptr<Transport> transport, std::vector<int> members);
  static Group of_one() { return Group(nullptr, {0}); }

  int rank() const { return rank_; }  // index into the members
  int size() const { return static_cast<int>(members_.size()); }

  // data[i] becomes the sum over ranks of data[i], added by the balanced binary tree over rank order,
  // ((0+1)+(2+3))+((4+5)+(6+7)). size() is a power of two.
  Result<void> all_reduce_tree(std::span<float> data);
  // The same sum, of which rank r gets elements [offset, offset + counts[r]), offset the sum of the counts before.
  // data.size() is the sum of counts; out.size() is counts[rank()]. `data` may be overwritten.
  Result<void> reduce_scatter_tree(std::span<float> data, std::span<const std::size_t> counts, std::span<float> out);

  // Rank r's `in` goes to out[r * in.size() ..) on every rank. in.size() is the same on all ranks. `in` may be that
  // part of `out` itself.
  Result<void> all_gather_bytes(std::span<const std::byte> in, std::span<std::byte> out);
  // With different sizes: rank r gives sizes[r] bytes; they follow one another in `out`.
  Result<void> all_gather_v(std::span<const std::byte> in, std::span<const std::size_t> sizes,
                            std::span<std::byte> out);
  // Rank s's piece for rank r (to_sizes[r] bytes there, the pieces follow one another) arrives in r's `out` as the
  // piece from s (from_sizes[s] bytes). A rank's piece for itself is copied.
  Result<void> all_to_all_v(std::span<const std::byte> in, std::span<const std::size_t> to_sizes,
                            std::span<std::byte> out, std::span<const std::size_t> from_sizes);
  Result<void> broadcast(std::span<std::byte> data, int root);
  Result<void> send(std::span<const std::byte> data, int peer);
  Result<void> receive(std::span<std::byte> data, int peer);
  // Returns on no rank before every rank has called it.
  Result<void> barrier();

  // A message whose length the receiver does not know; it refuses one over `bytes_max`. To all from `root`; and to one.
  Result<void> broadcast_message(std::string* message, int root, std::size_t bytes_max);
  Result<void> send_message(const std::string& message, int peer);
  Result<void> receive_message(std::string* message, int peer, std::size_t bytes_max);
  // Waits until something of `peer` is there; false after timeout_ms. See Transport::wait_for.
  Result<bool> wait_for(int peer, int timeout_ms);

  Result<void> all_gather(std::span<const float> in, std::span<float> out) {
    return all_gather_bytes(std::as_bytes(in), std::as_writable_bytes(out));
  }

 private:
  Result<void> all_reduce_direct(std::span<float> data);
  Result<void> all_reduce_scattered(std::span<float> data);
  void reserve_received(std::size_t floats) {
    if (received_.size() < floats) received_.resize(floats);
  }
  int member(int group_rank) const { return members_[static_cast<std::size_t>(group_rank)]; }

  std::shared_ptr<Transport> transport_;
  std::vector<int> members_;
  int rank_ = 0;
  // Kept between calls for their capacity: nothing is allocated in a step.
  std::vector<std::size_t> sizes_;
  std::vector<Transport::Outgoing> outgoing_;
  std::vector<Transport::Incoming> incoming_;
  std::vector<float> received_;
  std::vector<const float*> pieces_;  // one per rank: what tree_sum() adds
};

// `size` groups of one world whose ranks are threads of this process; element r is handed to the thread of rank r.
std::vector<Group> make_thread_groups(int size, int timeout_ms);

}  // namespace chorus
