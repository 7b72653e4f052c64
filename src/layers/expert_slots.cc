#include "layers/expert_slots.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace chorus {
namespace {

// One blob's way from a slot of the placement before to one of the placement after; a rank may send to itself.
struct Move {
  int from_slot = 0, from_rank = 0;
  int to_slot = 0, to_rank = 0;
};

// What changes, in rounds: in each a rank gets one blob at most. Within a round moves are in ascending slot. All ranks
// make the same list.
std::vector<std::vector<Move>> plan_rounds(const ExpertPlacement& before, const ExpertPlacement& after) {
  std::vector<std::vector<Move>> rounds;
  std::vector<std::size_t> round_of_rank(static_cast<std::size_t>(after.ranks()), 0);
  for (int slot = 0; slot < after.slots(); ++slot) {
    const int expert = after.expert_of(slot), rank = after.rank_of(slot);
    if (before.expert_of(slot) == expert) continue;
    const auto replicas = before.replicas(expert);
    int source = replicas[static_cast<std::size_t>(slot) % replicas.size()];  // spreads the sending
    for (const int replica : replicas) {
      if (before.rank_of(replica) == rank) source = replica;
    }
    const std::size_t round = round_of_rank[static_cast<std::size_t>(rank)]++;
    if (round == rounds.size()) rounds.emplace_back();
    rounds[round].push_back({source, before.rank_of(source), slot, rank});
  }
  return rounds;
}

}  // namespace

void ExpertSlots::Unmap::operator()(std::byte* memory) const {
  ::munmap(memory, bytes);
}

int ExpertSlots::add_layer(ExpertPlacement placement, int rank, std::size_t begin) {
  const std::size_t slots = placement.experts_of(rank).size(), bytes = parameters_.arena_bytes() - begin;
  CHECK(slots > 0 && bytes % slots == 0, "{} bytes in {} slots", bytes, slots);
  CHECK(layers_.empty() || placement.experts() == experts(), "{} experts after layers of {}", placement.experts(),
        experts());
  layers_.push_back({std::move(placement), rank, begin, bytes / slots});
  loads_.resize(layers_.size() * static_cast<std::size_t>(experts()));
  return layers() - 1;
}

Result<void> ExpertSlots::load(const Checkpoint& checkpoint, ThreadPool& pool) {
  void* memory = ::mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return fail(ErrorCode::resource_exhausted,
                "no memory for {} bytes of experts ({}): use more ranks or fewer redundant experts", bytes(),
                std::strerror(errno));
  }
  memory_ = {static_cast<std::byte*>(memory), Unmap{bytes()}};
  CHORUS_TRY_VOID(parameters_.pack(checkpoint, pool, memory_.get()));
  return parameters_.bind(memory_.get(), bytes());
}

std::span<std::byte> ExpertSlots::blob(const Layer& layer, int slot) {
  const auto index = static_cast<std::size_t>(slot - layer.placement.first_slot(layer.rank));
  return {memory_.get() + layer.begin + index * layer.blob_bytes, layer.blob_bytes};
}

void ExpertSlots::count(int layer, std::span<const ExpertChoice> choices) {
  std::uint32_t* loads = loads_.data() + static_cast<std::size_t>(layer) * static_cast<std::size_t>(experts());
  for (const ExpertChoice& choice : choices) ++loads[choice.expert];
}

void ExpertSlots::clear_loads() {
  std::ranges::fill(loads_, 0U);
}

Result<void> ExpertSlots::rearrange(Group& ep, int layer_index, const ExpertPlacement& next) {
  Layer& layer = layers_[static_cast<std::size_t>(layer_index)];
  CHECK(ep.rank() == layer.rank && ep.size() == next.ranks() && next.experts() == experts(),
        "rank {} of {} moves experts of {} ranks", ep.rank(), ep.size(), next.ranks());
  for (int rank = 0; rank <= next.ranks(); ++rank) {
    CHECK(next.first_slot(rank) == layer.placement.first_slot(rank), "rank {} begins at another slot", rank);
  }
  // What comes is kept aside until all has gone: a slot's old expert may be wanted elsewhere.
  std::vector<std::byte> outgoing, arrived;
  std::vector<int> arrived_slots;
  const auto ranks = static_cast<std::size_t>(ep.size());
  std::vector<std::size_t> to_bytes(ranks), from_bytes(ranks);
  for (const std::vector<Move>& round : plan_rounds(layer.placement, next)) {
    outgoing.clear();
    std::ranges::fill(to_bytes, 0U);
    std::ranges::fill(from_bytes, 0U);
    const std::size_t first = arrived.size();
    for (const Move& move : round) {  // slots ascend, so ranks do
      if (move.from_rank == layer.rank) {
        const auto source = blob(layer, move.from_slot);
        outgoing.insert(outgoing.end(), source.begin(), source.end());
        to_bytes[static_cast<std::size_t>(move.to_rank)] += layer.blob_bytes;
      }
      if (move.to_rank == layer.rank) {
        arrived_slots.push_back(move.to_slot);
        arrived.resize(first + layer.blob_bytes);
        from_bytes[static_cast<std::size_t>(move.from_rank)] += layer.blob_bytes;
      }
    }
    CHORUS_TRY_VOID(ep.all_to_all_v(outgoing, to_bytes, std::span(arrived).subspan(first), from_bytes));
  }
  for (std::size_t i = 0; i < arrived_slots.size(); ++i) {
    std::ranges::copy(std::span(arrived).subspan(i * layer.blob_bytes, layer.blob_bytes),
                      blob(layer, arrived_slots[i]).begin());
  }
  layer.placement = next;
  return {};
}

}  // namespace chorus
