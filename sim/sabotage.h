// Deliberate bugs, put between the production code and the world, to see that the simulator finds them. A simulator
// that has never failed proves nothing.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "cluster/router.h"
#include "random.h"

namespace chorus::sim {

enum class Sabotage : std::uint8_t {
  none,
  forget_last_token,  // a ledger that has not kept the last token it delivered: it comes again
  ignore_epochs,      // old incarnations are listened to
  other_seed,         // a request goes on elsewhere under another seed
  corrupt_token,      // now and then another token comes out of the link
  lose_finish,        // now and then the last event of a choice is lost
};

inline constexpr std::pair<const char*, Sabotage> kSabotages[] = {
    {"none", Sabotage::none},
    {"forget-last-token", Sabotage::forget_last_token},
    {"ignore-epochs", Sabotage::ignore_epochs},
    {"other-seed", Sabotage::other_seed},
    {"corrupt-token", Sabotage::corrupt_token},
    {"lose-finish", Sabotage::lose_finish},
};

class Saboteur {
 public:
  Saboteur(Sabotage kind, std::uint64_t seed) : kind_(kind), random_(seed) {}

  // Spoils a message on its way to a replica.
  void on_message(RouterMessage* message) {
    if (message->kind != RouterMessage::Kind::add) return;
    for (ChoiceState& choice : message->request.choices) {
      if (choice.emitted.empty()) continue;
      if (kind_ == Sabotage::other_seed) ++message->request.params.seed;
      if (kind_ != Sabotage::forget_last_token) continue;
      choice.emitted.pop_back();
      forgotten_[{message->id, choice.index}] = static_cast<std::uint32_t>(choice.emitted.size());
    }
  }

  // Spoils an event on its way to the router. False: it is lost.
  bool on_event(const Ledger& ledger, Placement* from, TokenEvent* event) {
    if (kind_ == Sabotage::ignore_epochs) *from = ledger.placement_of(event->request).value_or(*from);
    if (kind_ == Sabotage::corrupt_token && event->token && random_.chance(0.001)) *event->token ^= 1;
    return !(kind_ == Sabotage::lose_finish && event->finish != FinishReason::none && random_.chance(0.01));
  }

  // The router has dropped this event: would the faulty ledger have taken it?
  bool accepts_dropped(const TokenEvent& event) {
    const auto at = forgotten_.find({event.request, event.choice});
    if (at == forgotten_.end() || !event.token || at->second != event.position) return false;
    forgotten_.erase(at);
    return true;
  }

 private:
  Sabotage kind_;
  Random random_;
  std::map<std::pair<RequestId, std::uint32_t>, std::uint32_t> forgotten_;
};

}  // namespace chorus::sim
