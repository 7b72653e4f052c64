// tokenizer_bench MODEL TEXT_FILE [ROUNDS]: times loading MODEL/tokenizer.json (the median and the best of 20) and
// encoding the file, as one text and line by line (the best of ROUNDS, 5). Prints one JSON object.
// bench/tokenizer_bench.py compares it with the reference.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "json/file.h"
#include "json/json.h"
#include "tokenizer/tokenizer.h"

namespace {

constexpr int loads = 20;

// Ascending.
std::vector<double> seconds_of(int rounds, const std::function<void()>& work) {
  std::vector<double> seconds;
  for (int round = 0; round < rounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds;
}

double best_seconds(int rounds, const std::function<void()>& work) {
  return seconds_of(rounds, work).front();
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fputs("usage: tokenizer_bench MODEL TEXT_FILE [ROUNDS]\n", stderr);
    return 2;
  }
  const int rounds = argc > 3 ? std::max(1, std::atoi(argv[3])) : 5;
  const auto tokenizer = chorus::load_tokenizer(argv[1]);
  const auto text = chorus::read_file(argv[2], std::size_t{1} << 30);
  if (!tokenizer.ok() || !text.ok()) {
    std::fprintf(stderr, "%s\n", (tokenizer.ok() ? text.error() : tokenizer.error()).message.c_str());
    return 2;
  }
  const auto lines = lines_of(*text);
  std::size_t whole_tokens = 0, line_tokens = 0;
  const auto loads_s = seconds_of(loads, [&] { (void)chorus::load_tokenizer(argv[1]); });
  const double whole_s =
      best_seconds(rounds, [&] { whole_tokens = (*tokenizer)->encode(*text, false).value().size(); });
  const double lines_s = best_seconds(rounds, [&] {
    line_tokens = 0;
    for (const std::string_view line : lines) line_tokens += (*tokenizer)->encode(line, false).value().size();
  });
  const double megabytes = static_cast<double>(text->size()) / 1e6;
  std::string out;
  chorus::JsonWriter writer(&out);
  writer.begin_object().key("load_ms").value(loads_s.front() * 1e3);
  writer.key("load_median_ms").value(loads_s[loads_s.size() / 2] * 1e3);
  writer.key("whole_mb_per_s").value(megabytes / whole_s).key("whole_tokens").value(std::uint64_t{whole_tokens});
  writer.key("lines_mb_per_s").value(megabytes / lines_s).key("lines_tokens").value(std::uint64_t{line_tokens});
  writer.end_object();
  std::puts(out.c_str());
  return 0;
}
