#include "server/parent.h"

#include <poll.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "protocol/messages.h"

namespace chorus {
namespace {

constexpr int look_interval_ms = 100;
constexpr int failures_max = 5;
constexpr Nanoseconds millisecond = 1'000'000;
constexpr Nanoseconds first_pause = 100 * millisecond, longest_pause = 5'000 * millisecond;
// Who served for so long has not failed at its start.
constexpr Nanoseconds proven_after = 10'000 * millisecond;
constexpr int ending_grace_ms = 3'000;     // after its own timeout a front end closes its connections
constexpr int last_words_wait_ms = 2'000;  // for the front ends to tell their clients that the engines are no more

}  // namespace

ServerParent::ServerParent(FleetHost* host, FrontEndStart start, std::vector<UniqueFd> listeners, MetricStore metrics,
                           bool log_stats)
    : host_(host),
      start_(std::move(start)),
      metrics_(std::move(metrics)),
      replicas_(metrics_.parent(), start_.engine.parallel.fleet_end()),
      log_stats_(log_stats) {
  for (UniqueFd& listener : listeners) children_.emplace_back().listener = std::move(listener);
}

ServerParent::~ServerParent() {
  for (FrontEndChild& child : children_) {
    if (child.client != 0) host_->remove_client(child.client);
  }
}

Result<void> ServerParent::begin() {
  for (std::size_t index = 0; index < children_.size(); ++index) CHORUS_TRY_VOID(begin(index));
  return {};
}

Result<void> ServerParent::begin(std::size_t index) {
  FrontEndChild& child = children_[index];
  CHORUS_TRY(auto pair, make_socket_pair());
  CHORUS_TRY(child.process,
             ChildProcess::spawn(fmt::format("chorus front-end {}", index), pair.second, front_end_socket_fd));
  CHORUS_TRY(child.control, make_socket_connection(std::move(pair.first)));
  child.begun_at = monotonic_now();
  child.begins_at.reset();
  child.configured = child.serves = false;
  child.last_words.clear();
  return {};
}

Result<void> ServerParent::connect(const std::function<bool()>& stop) {
  fleet_is_there_ = true;
  for (std::size_t index = 0; index < children_.size(); ++index) join_fleet(children_[index], index);
  while (!std::ranges::all_of(children_, &FrontEndChild::serves)) {
    if (stop()) return fail(ErrorCode::cancelled, "interrupted");
    turn(look_interval_ms);
    for (const FrontEndChild& child : children_) {
      if (child.failures > 0) return fail(ErrorCode::unavailable, "the front end {}", child.last_words);
    }
    CHORUS_TRY_VOID(check());
  }
  return {};
}

void ServerParent::join_fleet(FrontEndChild& child, std::size_t index) {
  if (!fleet_is_there_ || !child.configured || child.client != 0) return;
  auto pair = make_socket_pair();
  if (!pair.ok()) return child.process.kill();
  auto connection = make_socket_connection(std::move(pair->first));
  if (!connection.ok()) return child.process.kill();
  const ParallelConfig door = engine_of_door(start_.engine, static_cast<int>(index)).parallel;
  const RankRange serves = door.behind_outer_balancer() ? RankRange{door.door_begin(), door.door_end()} : RankRange();
  child.client = host_->add_client(std::move(*connection), serves);
  const auto sent = child.control->send(static_cast<std::uint8_t>(MessageType::client), 0,
                                        encode(FrontEndJoin{child.client, host_->times().profile, host_->prefix_key()}),
                                        pair->second.get());
  if (!sent.ok()) child.process.kill();
}

Result<void> ServerParent::run(const std::function<bool()>& stop) {
  while (!stop()) {
    turn(look_interval_ms);
    const auto state = check();
    if (state.ok()) continue;
    ending_ = true;
    const Nanoseconds until = deadline_after(last_words_wait_ms);
    while (any_runs() && monotonic_now() < until) turn(look_interval_ms);
    return state;
  }
  tell_to_end();
  const Nanoseconds until = deadline_after(start_.shutdown_timeout_s * 1'000 + ending_grace_ms);
  while (any_runs() && monotonic_now() < until) turn(look_interval_ms);
  return {};
}

void ServerParent::tell_to_end() {
  ending_ = true;
  for (FrontEndChild& child : children_) {
    child.listener.reset();  // nobody is to wait there for a server that ends
    if (!child.control) continue;
    const auto sent = child.control->send(static_cast<std::uint8_t>(MessageType::shutdown), 0, {});
    if (!sent.ok()) child.process.kill();
  }
}

bool ServerParent::any_runs() const {
  return std::ranges::any_of(children_, [](const FrontEndChild& child) { return child.process.running(); });
}

Result<void> ServerParent::check() const {
  if (host_->is_over()) return host_->all_dead();
  for (const FrontEndChild& child : children_) {
    if (child.failures > failures_max) {
      return fail(ErrorCode::unavailable, "a front end ended {} times in a row; last it {}", child.failures,
                  child.last_words);
    }
  }
  return {};
}

// The host's descriptor first, then two a front end.
void ServerParent::turn(int timeout_ms) {
  const FleetWait wait = host_->wait();
  std::vector<pollfd> items = {{wait.descriptor, POLLIN, 0}};
  timeout_ms = std::min(timeout_ms, wait.timeout_ms);
  for (const FrontEndChild& child : children_) {
    items.push_back({child.control ? child.control->fd() : -1, POLLIN, 0});
    items.push_back({child.process.pidfd(), POLLIN, 0});
    if (child.begins_at) timeout_ms = std::min(timeout_ms, milliseconds_until(*child.begins_at));
  }
  (void)::poll(items.data(), items.size(), timeout_ms);  // what it does not say is seen the next time
  host_->turn(0);
  count();
  for (std::size_t index = 0; index < children_.size(); ++index) {
    FrontEndChild& child = children_[index];
    read(child, index);
    const auto status = child.process.running() ? child.process.reap(0) : std::nullopt;
    if (status) on_exit(child, index, *status);
  }
  begin_again();
}

void ServerParent::count() {
  if (!fleet_is_there_) return;
  replicas_.take(host_->replicas());
  if (!log_stats_) return;
  for (const std::string& line : replicas_.log_lines(monotonic_now())) log(LogLevel::info, "{}", line);
}

void ServerParent::read(FrontEndChild& child, std::size_t index) {
  while (child.control) {
    auto frame = child.control->receive();
    if (!frame.ok()) return;  // its end is told by its process
    if (!frame->has_value()) break;
    take(child, index, std::move(**frame));
  }
  if (!child.control) return;
  if (const auto flushed = child.control->flush(); !flushed.ok()) {
    log(LogLevel::debug, "front end {}: {}", index, flushed.error().message);
  }
}

Result<void> ServerParent::configure(FrontEndChild& child, std::size_t index) const {
  FrontEndStart start = start_;
  start.index = static_cast<std::int32_t>(index);
  CHORUS_TRY_VOID(
      child.control->send(static_cast<std::uint8_t>(MessageType::config), 0, encode(start), child.listener.get()));
  return child.control->send(static_cast<std::uint8_t>(MessageType::metrics), 0, {}, metrics_.fd());
}

void ServerParent::take(FrontEndChild& child, std::size_t index, Frame frame) {
  switch (static_cast<MessageType>(frame.type)) {
    case MessageType::hello:
      if (!configure(child, index).ok()) return child.process.kill();
      child.configured = true;
      return join_fleet(child, index);
    case MessageType::ready:
      child.serves = true;
      return;
    case MessageType::fatal:
      if (const auto fatal = decode_fatal(frame.payload); fatal.ok()) child.last_words = "failed: " + fatal->message;
      return;
    default:
      return child.process.kill();
  }
}

void ServerParent::on_exit(FrontEndChild& child, std::size_t index, const ExitStatus& status) {
  if (child.client != 0) host_->remove_client(std::exchange(child.client, 0));
  child.control.reset();
  if (child.last_words.empty()) child.last_words = describe(status);
  if (ending_) return;
  metrics_.front_end(static_cast<int>(index)).clear_gauges();
  metrics_.parent().add(Metric::front_end_deaths);
  const bool proven = child.serves && monotonic_now() - child.begun_at > proven_after;
  child.failures = proven ? 1 : child.failures + 1;
  child.serves = false;
  const Nanoseconds pause = child.failures == 1 ? 0 : std::min(first_pause << (child.failures - 2), longest_pause);
  child.begins_at = monotonic_now() + pause;
  log(LogLevel::warning, "front end {} (pid {}) {}: its clients are cut off, it is started again", index,
      child.process.last_pid(), child.last_words);
}

void ServerParent::begin_again() {
  for (std::size_t index = 0; index < children_.size(); ++index) {
    FrontEndChild& child = children_[index];
    if (ending_ || !child.begins_at || monotonic_now() < *child.begins_at) continue;
    if (const auto begun = begin(index); !begun.ok()) {
      ++child.failures;
      child.last_words = fmt::format("did not start ({})", begun.error().message);
      child.begins_at = monotonic_now() + longest_pause;
    }
  }
}

}  // namespace chorus
