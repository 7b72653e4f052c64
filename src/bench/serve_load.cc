#include "bench/serve_load.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <iterator>
#include <memory>
#include <utility>

#include "base/clock.h"
#include "base/descriptor_limit.h"
#include "client/http_client.h"
#include "client/http_exchange.h"
#include "net/tcp.h"
#include "net/unix_socket.h"

namespace chorus {
namespace {

constexpr Nanoseconds look_interval = 100'000'000;  // how often `stop` is asked and silence is looked for

double seconds(Nanoseconds time) {
  return static_cast<double>(time) * 1e-9;
}

// One request under way, which writes its outcome.
class Stream {
 public:
  Stream(UniqueFd socket, std::string request, LoadOutcome* outcome)
      : outcome_(outcome),
        start_(monotonic_now()),
        last_(start_),
        heard_(start_),
        answer_([this](const AnswerPiece& piece) { take(piece); }),
        exchange_(std::move(socket), std::move(request),
                  [this](std::string_view bytes) { return answer_.feed(bytes); }) {
    outcome_->start_s = seconds(start_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  int fd() const { return exchange_.fd(); }
  bool wants_to_write() const { return exchange_.wants_to_write(); }
  // It has waited for too long.
  Result<void> check_silence(Nanoseconds now, const LoadTarget& target) const {
    const double limit_s = has_token_ ? target.silence_limit_s : target.first_token_limit_s;
    if (seconds(now - (has_token_ ? heard_ : start_)) <= limit_s) return {};
    return fail(ErrorCode::deadline_exceeded, "the server sent {} for {} s", has_token_ ? "nothing" : "no token",
                limit_s);
  }

  // True: it has ended, well or not.
  bool advance() {
    heard_ = monotonic_now();
    const Result<bool> done = exchange_.advance();
    if (done.ok() && !*done) return false;
    end(done.ok() ? answer_.finish() : Result<void>(done.error()));
    return true;
  }

  void end(const Result<void>& how) {
    LoadOutcome& outcome = *outcome_;
    outcome.latency_s = seconds(last_ - start_);
    outcome.success = how.ok() && has_token_;
    if (!how.ok()) outcome.error = how.error().message;
    if (how.ok() && !has_token_) outcome.error = "the answer has no token";
    // A server that tells no usage: an event is taken for a token.
    if (outcome.success && outcome.output_tokens == 0) outcome.output_tokens = outcome.itl_s.size() + 1;
  }

 private:
  void take(const AnswerPiece& piece) {
    if (piece.usage) {
      outcome_->prompt_tokens = piece.usage->prompt_tokens;
      outcome_->output_tokens = piece.usage->completion_tokens;
    }
    if (!piece.has_choice) return;
    const Nanoseconds now = monotonic_now();
    if (std::exchange(has_token_, true)) {
      outcome_->itl_s.push_back(seconds(now - last_));
    } else {
      outcome_->ttft_s = seconds(now - start_);
    }
    last_ = now;
    outcome_->text += piece.text;
  }

  LoadOutcome* outcome_;
  Nanoseconds start_, last_, heard_;  // began; its last token; anything came
  bool has_token_ = false;
  AnswerStream answer_;
  HttpExchange exchange_;
};

class Load {
 public:
  Load(const LoadTarget& target, const tcp::Address& address, const std::vector<LoadRequest>& requests,
       const std::function<void(std::size_t, std::uint64_t)>& on_done)
      : target_(target),
        address_(address),
        requests_(requests),
        on_done_(on_done),
        epoll_(::epoll_create1(EPOLL_CLOEXEC)),
        begun_(monotonic_now()),
        streams_(requests.size()) {
    run_.outcomes.resize(requests.size());
  }

  Result<LoadRun> run(const std::function<bool()>& stop) {
    if (!epoll_.valid()) return fail(ErrorCode::internal, "epoll_create1: {}", std::strerror(errno));
    Nanoseconds look_at = begun_ + look_interval;
    while (ended_ < requests_.size()) {
      const Nanoseconds now = monotonic_now();
      begin_those_due(now);
      if (ended_ == requests_.size()) break;
      turn(std::min(look_at, next_ < requests_.size() ? time_of(next_) : look_at));
      if (monotonic_now() < look_at) continue;
      if (stop && stop()) return fail(ErrorCode::cancelled, "interrupted");
      look_at = monotonic_now() + look_interval;
      end_the_silent(monotonic_now());
    }
    run_.duration_s = seconds(monotonic_now() - begun_);
    return std::move(run_);
  }

 private:
  struct Waiting {
    std::size_t index;
    Nanoseconds since;
  };

  Nanoseconds time_of(std::size_t index) const {
    return begun_ + static_cast<Nanoseconds>(requests_[index].at_s * 1e9);
  }

  void begin_those_due(Nanoseconds now) {
    for (; next_ < requests_.size() && time_of(next_) <= now; ++next_) waiting_.push_back({next_, now});
    const auto has_room = [this] {
      return target_.max_concurrency == 0 || under_way_ < static_cast<std::size_t>(target_.max_concurrency);
    };
    while (!waiting_.empty() && has_room()) {
      const Waiting first = waiting_.front();
      waiting_.pop_front();
      begin(first);
    }
  }

  void begin(const Waiting& first) {
    const LoadRequest& request = requests_[first.index];
    LoadOutcome& outcome = run_.outcomes[first.index];
    outcome.prompt_tokens = request.prompt_tokens;
    outcome.start_s = seconds(monotonic_now());
    outcome.queue_s = outcome.start_s - seconds(first.since);
    Result<UniqueFd> socket = connect();
    if (!socket.ok()) {
      outcome.error = socket.error().message;
      return ended(first.index);
    }
    std::vector<std::string> headers = target_.headers;
    if (!request.id.empty()) headers.push_back("X-Request-Id: " + request.id);
    auto& stream = streams_[first.index];
    stream = std::make_unique<Stream>(
        std::move(*socket), request_text(target_.endpoint, "POST", target_.path, request.body, headers), &outcome);
    outcome.queue_s = outcome.start_s - seconds(first.since);
    ++under_way_;
    watch(EPOLL_CTL_ADD, first.index);
  }

  // Asks epoll for what the stream waits for: to be written, or to be read.
  void watch(int operation, std::size_t index) {
    const Stream& stream = *streams_[index];
    epoll_event event{stream.wants_to_write() ? EPOLLOUT : EPOLLIN, {.u64 = index}};
    if (::epoll_ctl(epoll_.get(), operation, stream.fd(), &event) == 0) return;
    give_up(index, fail(ErrorCode::internal, "epoll_ctl: {}", std::strerror(errno)));
  }

  Result<UniqueFd> connect() const {
    const std::string& path = target_.endpoint.path;
    if (!path.empty()) return connect_unix(path, "unix:" + path);
    CHORUS_TRY(UniqueFd socket, tcp::begin_connect(address_));
    tcp::let_peer_be_busy(socket.get());
    return socket;
  }

  void turn(Nanoseconds until) {
    epoll_event events[256];
    const int ready = ::epoll_wait(epoll_.get(), events, std::size(events), milliseconds_until(until));
    for (int i = 0; i < ready; ++i) advance(events[i].data.u64);
  }

  void advance(std::size_t index) {
    Stream& stream = *streams_[index];
    const bool wrote = stream.wants_to_write();
    if (stream.advance()) {
      --under_way_;
      return ended(index);
    }
    if (wrote != stream.wants_to_write()) watch(EPOLL_CTL_MOD, index);
  }

  void end_the_silent(Nanoseconds now) {
    for (std::size_t index = 0; index < next_; ++index) {
      if (!streams_[index]) continue;
      const Result<void> answers = streams_[index]->check_silence(now, target_);
      if (!answers.ok()) give_up(index, answers.error());
    }
  }

  void give_up(std::size_t index, const Error& why) {
    streams_[index]->end(why);
    --under_way_;
    ended(index);
  }

  void ended(std::size_t index) {
    streams_[index].reset();
    ++ended_;
    tokens_ += run_.outcomes[index].output_tokens;
    if (on_done_) on_done_(ended_, tokens_);
  }

  const LoadTarget& target_;
  const tcp::Address& address_;
  const std::vector<LoadRequest>& requests_;
  const std::function<void(std::size_t, std::uint64_t)>& on_done_;
  UniqueFd epoll_;
  Nanoseconds begun_;
  std::vector<std::unique_ptr<Stream>> streams_;  // null: not begun, or ended
  std::deque<Waiting> waiting_;                   // due, and held back by max_concurrency
  std::size_t next_ = 0, ended_ = 0, under_way_ = 0;
  std::uint64_t tokens_ = 0;
  LoadRun run_;
};

}  // namespace

Result<LoadRun> run_load(const LoadTarget& target, const std::vector<LoadRequest>& requests,
                         const std::function<bool()>& stop,
                         const std::function<void(std::size_t ended, std::uint64_t tokens)>& on_done) {
  // The first of the host's addresses that answers is the one that is measured.
  CHORUS_TRY(const UniqueFd probe, connect_to(target.endpoint, stop));
  tcp::Address address;
  if (target.endpoint.path.empty()) {
    CHORUS_TRY(address, tcp::peer_address(probe.get()));
  }
  raise_descriptor_limit();
  return Load(target, address, requests, on_done).run(stop);
}

}  // namespace chorus
