#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace chorus {
namespace {

constexpr Nanoseconds terminal_interval = 100'000'000;
constexpr Nanoseconds plain_interval = 10'000'000'000;

}  // namespace

ProgressLine::ProgressLine(std::string what, bool disabled, std::optional<std::size_t> total)
    : what_(std::move(what)),
      disabled_(disabled),
      total_(total),
      terminal_(::isatty(STDERR_FILENO) == 1),
      started_(monotonic_now()),
      next_(started_ + (terminal_ ? terminal_interval : plain_interval)) {}

void ProgressLine::update(const GenerationProgress& progress) {
  const Nanoseconds now = monotonic_now();
  if (disabled_ || now < next_) return;
  next_ = now + (terminal_ ? terminal_interval : plain_interval);
  const double seconds = static_cast<double>(now - started_) * 1e-9;
  const std::string line = fmt::format("{}: {}{} rows, {} tokens, {:.0f} tokens/s", what_, progress.finished,
                                       total_ ? fmt::format(" of {}", *total_) : "", progress.output_tokens,
                                       static_cast<double>(progress.output_tokens) / seconds);
  std::fprintf(stderr, terminal_ ? "\r\033[K%s" : "%s\n", line.c_str());
  std::fflush(stderr);
  printed_ = true;
}

ProgressLine::~ProgressLine() {
  if (terminal_ && printed_) std::fprintf(stderr, "\r\033[K");
}

}  // namespace chorus
