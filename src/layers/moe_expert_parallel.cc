// Rows travel to the ranks that have their experts, outputs travel back. See moe.h.
#include <cstring>
#include <numeric>

#include "base/check.h"
#include "layers/expert_slots.h"
#include "layers/moe_buckets.h"

namespace chorus {
namespace {

template <typename T>
std::span<T> take(const LayerContext& context, std::size_t count) {
  return {context.device.scratch().take_array<T>(static_cast<std::int64_t>(count)), count};
}

std::int64_t exclusive_prefix_sums(std::span<std::int64_t> counts) {
  std::int64_t sum = 0;
  for (std::int64_t& count : counts) {
    const std::int64_t first = sum;
    sum += count;
    count = first;
  }
  return sum;
}

std::span<const std::size_t> in_bytes(const LayerContext& context, std::span<const std::int64_t> counts,
                                      std::size_t bytes_each) {
  const auto sizes = take<std::size_t>(context, counts.size());
  for (std::size_t i = 0; i < counts.size(); ++i) sizes[i] = static_cast<std::size_t>(counts[i]) * bytes_each;
  return sizes;
}

// Rows on their way, one record each: its `hidden` floats, then k slots of the receiver: first those that it is for, in
// ascending expert id, then -1. The outputs come back in the order of the records, and within one of its slots.
struct Records {
  std::span<std::byte> bytes;
  std::int64_t hidden = 0, k = 0;

  static std::size_t bytes_each(std::int64_t hidden, std::int64_t k) {
    return static_cast<std::size_t>(hidden + k) * 4;
  }
  static Records take(const LayerContext& context, std::size_t count, std::int64_t hidden, std::int64_t k) {
    return {chorus::take<std::byte>(context, count * bytes_each(hidden, k)), hidden, k};
  }
  std::int64_t count() const { return static_cast<std::int64_t>(bytes.size() / bytes_each(hidden, k)); }
  std::byte* row(std::int64_t i) const { return bytes.data() + static_cast<std::size_t>(i) * bytes_each(hidden, k); }
  std::byte* slots(std::int64_t i) const { return row(i) + hidden * 4; }
  std::int32_t slot(std::int64_t i, std::int64_t choice) const {
    std::int32_t value = -1;
    std::memcpy(&value, slots(i) + choice * 4, 4);
    return value;
  }
  std::int64_t replies(std::int64_t i) const {
    std::int64_t count = 0;
    while (count < k && slot(i, count) >= 0) ++count;
    return count;
  }
};

// Which of the outputs that a rank sends back are whose.
struct Replies {
  std::span<std::int64_t> first;  // by record
  std::span<std::int64_t> to;     // how many, by rank
};

Replies count_replies(const LayerContext& context, const Records& records, std::span<const std::int64_t> rows_from) {
  const Replies replies{take<std::int64_t>(context, static_cast<std::size_t>(records.count())),
                        take<std::int64_t>(context, rows_from.size())};
  std::int64_t next = 0;
  std::size_t record = 0;
  for (std::size_t rank = 0; rank < rows_from.size(); ++rank) {
    const std::int64_t before = next;
    for (std::int64_t row = 0; row < rows_from[rank]; ++row, ++record) {
      replies.first[record] = next;
      next += records.replies(static_cast<std::int64_t>(record));
    }
    replies.to[rank] = next - before;
  }
  return replies;
}

}  // namespace

// Where the rows of this rank go and where their outputs come back. In scratch.
struct MoeLayer::Journey {
  std::span<std::int64_t> rows_to, rows_from;  // records, by rank
  std::span<std::int64_t> replies_from;        // outputs that come back, by rank
  std::span<std::int64_t> output_of;           // [rows * k]: the place of each choice's output among all that come back
  std::span<std::int64_t> record_row;          // [records]: which row
  std::span<std::int32_t> record_slots;        // [records * k]
  std::span<float> replies;                    // what comes back
};

const ExpertPlacement& MoeLayer::placement_in(const LayerContext& context) const {
  return moving_layer_ < 0 ? placement_ : context.expert_slots->placement(moving_layer_);
}

MoeLayer::Journey MoeLayer::plan_journey(const LayerContext& context, const ExpertChoice* choices,
                                         std::int64_t rows) const {
  const auto k = static_cast<std::size_t>(shape_.experts_per_token), ranks = static_cast<std::size_t>(ranks_);
  const auto total = static_cast<std::size_t>(rows) * k;
  const ExpertPlacement& placement = placement_in(context);
  Journey journey;
  journey.rows_to = take<std::int64_t>(context, ranks);
  journey.rows_from = take<std::int64_t>(context, ranks);
  journey.replies_from = take<std::int64_t>(context, ranks);
  journey.output_of = take<std::int64_t>(context, total);
  journey.replies = take<float>(context, total * static_cast<std::size_t>(shape_.hidden_size));
  const auto slots = take<std::int32_t>(context, total);
  const auto rank_of = [&](std::size_t choice) { return static_cast<std::size_t>(placement.rank_of(slots[choice])); };
  // The first choice of a row that goes to a rank makes the record there.
  const auto is_first = [&](std::size_t choice) {
    for (std::size_t c = choice / k * k; c < choice; ++c) {
      if (rank_of(c) == rank_of(choice)) return false;
    }
    return true;
  };

  std::ranges::fill(journey.rows_to, 0);
  std::ranges::fill(journey.replies_from, 0);
  for (std::size_t c = 0; c < total; ++c) {
    slots[c] = placement.slot_for(choices[c].expert, replica_key(context.ep->rank(), static_cast<std::int64_t>(c / k)));
    journey.rows_to[rank_of(c)] += is_first(c) ? 1 : 0;
    ++journey.replies_from[rank_of(c)];
  }
  const auto next_record = take<std::int64_t>(context, ranks), next_reply = take<std::int64_t>(context, ranks);
  std::ranges::copy(journey.rows_to, next_record.begin());
  std::ranges::copy(journey.replies_from, next_reply.begin());
  const auto records = static_cast<std::size_t>(exclusive_prefix_sums(next_record));
  exclusive_prefix_sums(next_reply);
  journey.record_row = take<std::int64_t>(context, records);
  journey.record_slots = take<std::int32_t>(context, records * k);
  std::ranges::fill(journey.record_slots, -1);
  for (std::size_t c = 0; c < total; ++c) {
    const std::size_t rank = rank_of(c);
    journey.output_of[c] = next_reply[rank]++;
    if (!is_first(c)) continue;
    const auto record = static_cast<std::size_t>(next_record[rank]++);
    journey.record_row[record] = static_cast<std::int64_t>(c / k);
    std::size_t at = record * k;
    for (std::size_t other = c; other < (c / k + 1) * k; ++other) {
      if (rank_of(other) == rank) journey.record_slots[at++] = slots[other];
    }
  }
  return journey;
}

Result<std::span<std::byte>> MoeLayer::send_rows(const LayerContext& context, const float* x,
                                                 const Journey& journey) const {
  const std::int64_t k = shape_.experts_per_token, width = shape_.hidden_size;
  const Records records = Records::take(context, journey.record_row.size(), width, k);
  context.cpu().pool().for_range(records.count(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::memcpy(records.row(i), x + journey.record_row[static_cast<std::size_t>(i)] * width,
                  static_cast<std::size_t>(width) * 4);
      std::memcpy(records.slots(i), journey.record_slots.data() + i * k, static_cast<std::size_t>(k) * 4);
    }
  });
  const auto count_bytes = take<std::size_t>(context, static_cast<std::size_t>(ranks_));
  std::ranges::fill(count_bytes, sizeof(std::int64_t));
  CHORUS_TRY_VOID(context.ep->all_to_all_v(std::as_bytes(journey.rows_to), count_bytes,
                                           std::as_writable_bytes(journey.rows_from), count_bytes));
  const auto received =
      static_cast<std::size_t>(std::accumulate(journey.rows_from.begin(), journey.rows_from.end(), std::int64_t{0}));
  const std::size_t bytes_each = Records::bytes_each(width, k);
  const auto arrived = take<std::byte>(context, received * bytes_each);
  CHORUS_TRY_VOID(context.ep->all_to_all_v(records.bytes, in_bytes(context, journey.rows_to, bytes_each), arrived,
                                           in_bytes(context, journey.rows_from, bytes_each)));
  return arrived;
}

Result<void> MoeLayer::send_back(const LayerContext& context, const Parameters& parameters,
                                 std::span<std::byte> arrived, const Journey& journey) const {
  const std::int64_t k = shape_.experts_per_token, width = shape_.hidden_size;
  const std::size_t row_bytes = static_cast<std::size_t>(width) * 4;
  const Records records{arrived, width, k};
  const int first_slot = placement_in(context).first_slot(context.ep->rank());
  const auto own = static_cast<std::int32_t>(experts_.size());
  const Buckets buckets = sort(context, records.count() * k, [&](std::int64_t i) -> std::int64_t {
    const std::int32_t slot = records.slot(i / k, i % k);
    CHECK(slot < 0 || (slot >= first_slot && slot < first_slot + own), "a row for slot {} came to the {} from {} on",
          slot, own, first_slot);
    return slot < 0 ? -1 : slot - first_slot;
  });
  const Replies replies = count_replies(context, records, journey.rows_from);
  const auto inputs = take<float>(context, static_cast<std::size_t>(buckets.count * width));
  const auto outputs = take<float>(context, static_cast<std::size_t>(buckets.count * width));
  const auto in_order = take<float>(context, static_cast<std::size_t>(buckets.count * width));
  const auto for_each_choice = [&](const auto& visit) {  // visit(record, place in its bucket, place in the reply)
    context.cpu().pool().for_range(records.count(), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        for (std::int64_t c = 0; c < records.replies(i); ++c)
          visit(i, buckets.place_of[i * k + c], replies.first[static_cast<std::size_t>(i)] + c);
      }
    });
  };
  for_each_choice([&](std::int64_t i, std::int64_t place, std::int64_t) {
    std::memcpy(inputs.data() + place * width, records.row(i), row_bytes);
  });
  run_experts(context, moving_layer_ < 0 ? parameters : context.expert_slots->parameters(), buckets, inputs.data(),
              outputs.data());
  for_each_choice([&](std::int64_t, std::int64_t place, std::int64_t reply) {
    std::memcpy(in_order.data() + reply * width, outputs.data() + place * width, row_bytes);
  });
  return context.ep->all_to_all_v(std::as_bytes(in_order), in_bytes(context, replies.to, row_bytes),
                                  std::as_writable_bytes(journey.replies),
                                  in_bytes(context, journey.replies_from, row_bytes));
}

Result<void> MoeLayer::add_expert_parallel(const LayerContext& context, const Parameters& parameters, const float* x,
                                           std::int64_t rows, float* residual) const {
  const Scratch::Scope scope(context.device.scratch());
  const std::int64_t k = shape_.experts_per_token, width = shape_.hidden_size;
  const std::int64_t first = first_home_row(context, rows, context.tp.rank());
  const std::int64_t own = first_home_row(context, rows, context.tp.rank() + 1) - first;
  const ExpertChoice* choices = choose(context, parameters, x + first * width, own);
  if (moving_layer_ >= 0) context.expert_slots->count(moving_layer_, {choices, static_cast<std::size_t>(own * k)});

  const Journey journey = plan_journey(context, choices, own);
  CHORUS_TRY(const std::span<std::byte> arrived, send_rows(context, x + first * width, journey));
  CHORUS_TRY_VOID(send_back(context, parameters, arrived, journey));
  if (context.tp.size() == 1) {
    combine(context, parameters, choices, journey.output_of.data(), journey.replies.data(), own, true, residual);
    return {};
  }
  const auto sums = take<float>(context, static_cast<std::size_t>(rows * width));
  combine(context, parameters, choices, journey.output_of.data(), journey.replies.data(), own, false,
          sums.data() + first * width);
  return gather_and_add(context, sums.data(), rows, residual);
}

}  // namespace chorus
