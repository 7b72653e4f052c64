#include "cluster/router.h"

#include <iterator>
#include <utility>

#include "base/check.h"

namespace chorus {
namespace {

RequestShape shape_of(const Request& request) {
  const std::size_t choices = request.choices.empty() ? request.params.n : request.choices.size();
  return {request.prompt.size(), request.params.max_tokens, static_cast<std::uint32_t>(choices), request.priority};
}

}  // namespace

Router::Router(int ranks, std::unique_ptr<LoadBalancer> balancer, LedgerLimits limits)
    : fruitless_deaths_max_(limits.fruitless_deaths_max),
      ledger_(ranks, limits),
      loads_(ranks),
      balancer_(std::move(balancer)),
      ready_(static_cast<std::size_t>(ranks), 0) {}

void Router::replica_ready(Placement replica) {
  Epoch& ready = ready_.at(static_cast<std::size_t>(replica.rank));
  CHECK(ready == 0 && replica.epoch > 0, "rank {} epoch {} is ready, epoch {} has not died", replica.rank,
        replica.epoch, ready);
  ready = replica.epoch;
  loads_.replica_ready(replica.rank);
  place_waiting();
}

std::vector<TokenEvent> Router::replica_died(Placement replica) {
  Epoch& ready = ready_.at(static_cast<std::size_t>(replica.rank));
  CHECK(ready == 0 || ready == replica.epoch, "rank {} epoch {} died, epoch {} is ready", replica.rank, replica.epoch,
        ready);
  ready = 0;
  loads_.replica_died(replica.rank);
  std::vector<TokenEvent> ends;
  for (const RequestId request : ledger_.replica_died(replica)) end_if_fruitless(request, &ends);
  std::erase_if(messages_, [&](const RouterMessage& message) { return message.to == replica; });
  place_waiting();
  return ends;
}

void Router::end_if_fruitless(RequestId request, std::vector<TokenEvent>* events) {
  const std::uint32_t deaths = ledger_.fruitless_deaths(request);
  if (deaths < fruitless_deaths_max_) return;
  auto ends = ledger_.give_up(
      request, fmt::format("request {} was in flight when {} replicas died, one after the other; it is not tried again",
                           request, deaths));
  std::move(ends.begin(), ends.end(), std::back_inserter(*events));
  shapes_.erase(request);
}

void Router::set_draining(int rank, bool draining) {
  loads_.set_accepting(rank, !draining && ready_.at(static_cast<std::size_t>(rank)) != 0);
  place_waiting();
}

Result<void> Router::submit(Request request, std::optional<int> rank) {
  const RequestId id = request.id;
  const RequestShape shape = shape_of(request);
  CHORUS_TRY_VOID(ledger_.admit(std::move(request)));
  shapes_.emplace(id, shape);
  // With others waiting already no replica accepts, and nobody overtakes.
  const bool pinned = rank && loads_.loads()[static_cast<std::size_t>(*rank)].accepting;
  if (pinned) {
    place(id, *rank);
  } else {
    place_waiting();
  }
  return {};
}

void Router::place(RequestId request, int rank) {
  const Placement to{rank, ready_[static_cast<std::size_t>(rank)]};
  loads_.submitted(rank, ledger_.unfinished_choices(request));
  messages_.push_back({RouterMessage::Kind::add, to, ledger_.place(request, to), request, 0});
}

void Router::place_waiting() {
  while (const std::optional<RequestId> request = ledger_.next_unplaced()) {
    RequestShape& shape = shapes_.at(*request);
    shape.sequences = ledger_.unfinished_choices(*request);
    const std::optional<std::size_t> rank = balancer_->pick(shape, loads_.loads());
    if (!rank) return;
    place(*request, static_cast<int>(*rank));
  }
}

void Router::abort(RequestId request) {
  const std::uint32_t sequences = ledger_.unfinished_choices(request);
  const std::optional<Placement> at = ledger_.abort(request);
  shapes_.erase(request);
  if (!at) return;
  loads_.ended(at->rank, sequences);
  messages_.push_back({RouterMessage::Kind::abort, *at, {}, request, 0});
}

void Router::abort_choice(RequestId request, std::uint32_t choice) {
  const std::optional<Placement> at = ledger_.abort_choice(request, choice);
  if (!ledger_.contains(request)) shapes_.erase(request);
  if (!at) return;
  loads_.ended(at->rank, 1);
  messages_.push_back({RouterMessage::Kind::abort_choice, *at, {}, request, choice});
}

Judgement Router::on_event(Placement from, TokenEvent* event) {
  Judgement judgement = ledger_.on_event(from, event);
  if (judgement.choice_finished) loads_.ended(from.rank, 1);
  if (judgement.request_finished) shapes_.erase(event->request);
  return judgement;
}

Judgement Router::on_report(Placement from, const LoadReport& report) {
  if (ready_.at(static_cast<std::size_t>(from.rank)) != from.epoch) return {};
  if (loads_.report(from.rank, report)) return {Verdict::accepted, false, false, {}};
  return {Verdict::faulty, false, false,
          fmt::format("rank {} epoch {} reports {} submissions, not what was sent", from.rank, from.epoch,
                      report.submissions_received)};
}

std::vector<RouterMessage> Router::take_messages() {
  return std::exchange(messages_, {});
}

std::optional<Epoch> Router::ready_epoch(int rank) const {
  const Epoch epoch = ready_.at(static_cast<std::size_t>(rank));
  return epoch == 0 ? std::nullopt : std::optional(epoch);
}

}  // namespace chorus
