#include "exec/plan_codec.h"

#include <algorithm>
#include <utility>

#include "net/archive.h"

namespace chorus {
namespace {

// Only what changed goes out, so these two are written and read by hand: each member below, or found again as `rows`
// is.
static_assert(member_count<SequencePlan>() == 12 && member_count<StepPlan>() == 3);

enum Flags : std::uint8_t { is_new = 1, samples = 2, scores_prompt = 4, sends_banned = 8, uses_banned = 16 };
constexpr std::uint8_t all_flags = 31;

void write_tokens(WireWriter* wire, std::span<const std::int32_t> values) {
  wire->count(values.size());
  for (const std::int32_t value : values) wire->i32(value);
}

// Appends to `values`.
void read_tokens(WireReader* wire, std::vector<std::int32_t>* values) {
  const std::size_t count = wire->count(sizeof(std::int32_t));
  values->reserve(values->size() + count);
  for (std::size_t i = 0; i < count; ++i) values->push_back(wire->i32());
}

// The same for ids that index something of `end` entries.
void read_indices(WireReader* wire, std::int32_t end, const char* what, std::vector<std::int32_t>* values) {
  const std::size_t before = values->size();
  read_tokens(wire, values);
  for (std::size_t i = before; i < values->size(); ++i) {
    const std::int32_t id = (*values)[i];
    if (id < 0 || id >= end) return wire->refuse(fmt::format("the {} id {} is not below {}", what, id, end));
  }
}

}  // namespace

const std::string& PlanEncoder::encode(const StepPlan& plan) {
  wire_.clear();
  wire_.count(plan.ended.size());
  for (const std::uint64_t sequence : plan.ended) {
    wire_.u64(sequence);
    known_.erase(sequence);
  }
  wire_.count(plan.sequences.size());
  for (const SequencePlan& sequence : plan.sequences) encode_sequence(sequence);
  return wire_.bytes();
}

void PlanEncoder::encode_sequence(const SequencePlan& sequence) {
  const auto [at, first] = known_.try_emplace(sequence.sequence);
  Known& known = at->second;
  const bool send_banned = !sequence.banned.empty() && !known.banned;
  wire_.u64(sequence.sequence);
  wire_.u8(static_cast<std::uint8_t>((first ? is_new : 0) | (sequence.sample ? samples : 0) |
                                     (sequence.prompt_logprobs ? scores_prompt : 0) | (send_banned ? sends_banned : 0) |
                                     (sequence.banned.empty() ? 0 : uses_banned)));
  wire_.i32(sequence.start);
  wire_.i32(sequence.count);
  if (first) {
    archive::Encoder params;
    visit(params, *sequence.params);
    wire_.text(params.wire.bytes());
    wire_.i32(sequence.prompt_length);
    wire_.u32(sequence.choice);
  }
  if (send_banned) write_tokens(&wire_, sequence.banned);
  known.banned = known.banned || send_banned;
  write_tokens(&wire_, sequence.history.subspan(known.history));
  known.history = sequence.history.size();
  encode_table(sequence.block_table, &known.blocks);
  known.window_blocks.resize(sequence.window_tables.size());
  for (std::size_t i = 0; i < sequence.window_tables.size(); ++i)
    encode_table(sequence.window_tables[i], &known.window_blocks[i]);
}

void PlanEncoder::encode_table(std::span<const BlockId> table, std::vector<BlockId>* known) {
  const auto differ = std::ranges::mismatch(*known, table);
  const auto same = static_cast<std::size_t>(differ.in1 - known->begin());
  wire_.u32(static_cast<std::uint32_t>(same));
  write_tokens(&wire_, table.subspan(same));
  known->assign(table.begin(), table.end());
}

Result<const StepPlan*> PlanDecoder::decode(std::string_view message) {
  WireReader wire(message);
  plan_.sequences.clear();
  plan_.ended.clear();
  plan_.rows = 0;
  ++plan_number_;
  for (std::size_t left = wire.count(sizeof(std::uint64_t)); left > 0; --left) {
    plan_.ended.push_back(wire.u64());
    held_.erase(plan_.ended.back());
  }
  for (std::size_t left = wire.count(17); left > 0 && !wire.failed(); --left) decode_sequence(&wire);
  if (auto read = wire.finish(); !read.ok()) return with_context(read.error(), "a step plan");
  return &plan_;
}

void PlanDecoder::decode_sequence(WireReader* wire) {
  SequencePlan& sequence = plan_.sequences.emplace_back();
  sequence.sequence = wire->u64();
  const std::uint8_t flags = wire->u8_at_most(all_flags, "the flags of a sequence");
  sequence.start = wire->i32();
  sequence.count = wire->i32();
  const auto [at, first] = held_.try_emplace(sequence.sequence);
  Held& held = at->second;
  if (first != ((flags & is_new) != 0)) return wire->refuse("a sequence that is new to one side only");
  // What the plan points to must not move after it was pointed to.
  if (std::exchange(held.plan, plan_number_) == plan_number_) return wire->refuse("a sequence that is there twice");
  if (first) {
    const std::string params = wire->text();
    archive::Decoder decoder(params);
    visit(decoder, held.params);
    if (!decoder.wire.finish().ok()) return wire->refuse("sampling parameters that do not read back");
    held.prompt_length = wire->i32();
    held.choice = wire->u32();
  }
  if ((flags & sends_banned) != 0) read_tokens(wire, &held.banned);  // sampling looks for no id beyond the vocabulary
  read_indices(wire, limits_.vocab_size, "token", &held.history);
  decode_table(wire, &held.blocks);
  held.window_blocks.resize(static_cast<std::size_t>(limits_.window_tables));
  for (auto& blocks : held.window_blocks) decode_table(wire, &blocks);
  check(sequence, held, wire);
  if (wire->failed()) return;
  sequence.block_table = held.blocks;
  sequence.window_tables = held.window_blocks;
  sequence.history = held.history;
  sequence.prompt_length = held.prompt_length;
  sequence.sample = (flags & samples) != 0;
  sequence.choice = held.choice;
  sequence.params = &held.params;
  sequence.prompt_logprobs = (flags & scores_prompt) != 0;
  if ((flags & uses_banned) != 0) sequence.banned = held.banned;
  if (__builtin_add_overflow(plan_.rows, sequence.count, &plan_.rows)) wire->refuse("more rows than 32 bits count");
}

void PlanDecoder::decode_table(WireReader* wire, std::vector<BlockId>* held) const {
  const std::uint32_t same = wire->u32();
  if (same > held->size()) return wire->refuse("a block table that continues more than is known");
  held->resize(same);
  read_indices(wire, limits_.kv_blocks, "block", held);
}

void PlanDecoder::check(const SequencePlan& sequence, const Held& held, WireReader* wire) const {
  const auto length = static_cast<std::int64_t>(held.history.size());
  const std::int64_t end = std::int64_t{sequence.start} + sequence.count;
  if (sequence.start < 0 || sequence.count < 0 || end > length || held.prompt_length < 0 ||
      held.prompt_length > length) {
    return wire->refuse("rows outside of the sequence's tokens");
  }
  const auto has_places = [&](const std::vector<BlockId>& blocks) {
    return sequence.count == 0 || end <= static_cast<std::int64_t>(blocks.size()) * limits_.block_size;
  };
  if (!has_places(held.blocks) || !std::ranges::all_of(held.window_blocks, has_places))
    return wire->refuse("rows without a block");
}

std::string encode_result(const StepResult& result) {
  return archive::encode_value(result);
}

Result<void> decode_result(std::string_view message, StepResult* result) {
  CHORUS_TRY(*result, archive::decode_value<StepResult>(message, "a step's result"));
  return {};
}

std::size_t result_bytes_max(const StepPlan& plan) {
  constexpr std::size_t sequence_bytes = 32, position_bytes = 16, entry_bytes = 8;
  std::size_t bytes = sizeof(std::uint32_t);
  for (const SequencePlan& sequence : plan.sequences) {
    const std::size_t own = sequence.params->logprob_token_ids.size();
    bytes += sequence_bytes + entry_bytes * std::max<std::size_t>(sequence.params->logprobs.value_or(0), own);
    if (!sequence.prompt_logprobs) continue;
    bytes += static_cast<std::size_t>(sequence.count) *
             (position_bytes + entry_bytes * sequence.params->prompt_logprobs.value_or(0));
  }
  return bytes;
}

}  // namespace chorus
