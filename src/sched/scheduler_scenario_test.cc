// Runs tests/data/sched/*.scenario: what is added and aborted, and the plan and the events that each step must give.
// The format is told in tests/data/sched/README.md.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "testing/sched_testing.h"

namespace chorus {
namespace {

std::vector<std::filesystem::path> scenario_files() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(CHORUS_TEST_DATA "/sched")) {
    if (entry.path().extension() == ".scenario") files.push_back(entry.path());
  }
  std::ranges::sort(files);
  return files;
}

// "1:0", "name=value" and plain words after the command.
class Words {
 public:
  explicit Words(const std::string& line) : in_(line) { in_ >> command; }
  std::string command;
  std::map<std::string, int> values;
  std::vector<std::string> plain;
  void read() {
    for (std::string word; in_ >> word;) {
      const auto equals = word.find('=');
      if (equals == std::string::npos)
        plain.push_back(word);
      else
        values[word.substr(0, equals)] = std::stoi(word.substr(equals + 1));
    }
  }
  int take(const std::string& name, int otherwise) {
    const auto at = values.find(name);
    if (at == values.end()) return otherwise;
    const int value = at->second;
    values.erase(at);
    return value;
  }

 private:
  std::istringstream in_;
};

class Scenario {
 public:
  // What the line really gives, in the same words: equal to the line when the scheduler does as told.
  std::string run(const std::string& line) {
    Words words(line);
    if (words.command.empty() || words.command[0] == '#') return line;
    if (words.command == "step") {
      const std::string planned = plan("step");
      return planned + land();
    }
    if (words.command == "plan") return plan("plan");
    if (words.command == "land") return "land" + land();
    if (words.command == "stats") return stats();
    words.read();
    if (words.command == "config")
      configure(&words);
    else if (words.command == "add")
      add(&words);
    else if (words.command == "abort")
      abort(words.plain.at(0));
    else
      ADD_FAILURE() << "unknown command: " << line;
    for (const auto& [name, value] : words.values) ADD_FAILURE() << "unknown name " << name << ": " << line;
    return line;
  }

 private:
  void configure(Words* words) {
    SchedulerConfig config;
    config.max_num_seqs = words->take("max_num_seqs", 8);
    config.max_num_batched_tokens = words->take("max_num_batched_tokens", 16);
    config.max_model_len = words->take("max_model_len", 64);
    config.block_size = words->take("block_size", 4);
    config.kv_blocks = words->take("kv_blocks", 32);
    config.plans_in_flight_max = words->take("plans_in_flight_max", 1);
    config.kv_pools = words->take("kv_pools", 1);
    config.kv_pool_tokens = words->take("kv_pool_tokens", 4);
    config.enable_prefix_caching = words->take("prefix_caching", 0) != 0;
    config.by_priority = words->take("by_priority", 0) != 0;
    ends_told_ = words->take("ends", 0) != 0;
    config.vocab_size = 1000;
    engine_.emplace(config);
  }

  void add(Words* words) {
    Request request;
    request.id = {0, std::stoull(words->plain.at(0))};
    request.params.seed = request.id.number;  // so that the plan's params tell whose they are
    const int first = words->take("first", static_cast<int>(request.id.number) * 100);
    const int length = words->take("prompt", 0);
    for (int i = 0; i < length; ++i) request.prompt.push_back(first + i);
    request.params.max_tokens = static_cast<std::uint32_t>(words->take("max_tokens", 1));
    request.params.n = static_cast<std::uint32_t>(words->take("n", 1));
    request.priority = words->take("priority", 0);
    if (words->take("prompt_logprobs", 0) != 0) request.params.prompt_logprobs = 0;
    if (const int emitted = words->take("emitted", 0); emitted > 0) {
      ChoiceState choice{static_cast<std::uint32_t>(words->take("choice", 0)), {}};
      choice.emitted.assign(static_cast<std::size_t>(emitted), 7);
      engine_->outcomes()[{request.id, choice.index}].tokens = choice.emitted;
      request.choices = {choice};
    }
    engine_->scheduler().add(request);
  }

  void abort(const std::string& what) {
    const auto colon = what.find(':');
    if (colon == std::string::npos)
      engine_->scheduler().abort({0, std::stoull(what)});
    else
      engine_->scheduler().abort_choice({0, std::stoull(what)},
                                        static_cast<std::uint32_t>(std::stoul(what.substr(colon + 1))));
  }

  std::string plan(std::string told) {
    engine_->begin();
    for (const SequencePlan& sequence : engine_->plan().sequences) {
      told += fmt::format(" {}:{}[{},{}){}", sequence.params->seed, sequence.choice, sequence.start,
                          sequence.start + sequence.count, sequence.sample ? "*" : "");
      names_[sequence.sequence] = fmt::format("{}:{}", sequence.params->seed, sequence.choice);
    }
    if (!ends_told_) return told;
    for (const std::uint64_t sequence : engine_->plan().ended) told += " -" + names_.at(sequence);
    return told;
  }

  std::string land() {
    engine_->end();
    std::string told = " =>";
    for (const TokenEvent& event : engine_->events()) {
      told += fmt::format(" {}:{}@{}", event.request.number, event.choice, event.position);
      if (!event.prompt_logprobs.empty()) told += fmt::format("+{}", event.prompt_logprobs.size());
      if (event.finish != FinishReason::none) told += fmt::format("/{}", name_of(event.finish));
    }
    return told;
  }

  std::string stats() {
    const SchedulerStats stats = engine_->scheduler().stats();
    return fmt::format("stats running={} waiting={} free={} preemptions={} hits={}", stats.running, stats.waiting,
                       stats.kv_blocks_free, stats.preemptions, stats.prefix_cache_hits);
  }

  std::optional<ToyEngine> engine_;
  bool ends_told_ = false;
  std::map<std::uint64_t, std::string> names_;  // of planned sequences
};

class SchedulerScenario : public testing::TestWithParam<std::filesystem::path> {};

TEST_P(SchedulerScenario, GivesThePlansThatTheFileTells) {
  std::ifstream file(GetParam());
  std::string told, done;
  Scenario scenario;
  for (std::string line; std::getline(file, line);) {
    told += line + "\n";
    done += scenario.run(line) + "\n";
  }
  EXPECT_FALSE(told.empty());
  EXPECT_EQ(done, told);
}

INSTANTIATE_TEST_SUITE_P(Files, SchedulerScenario, testing::ValuesIn(scenario_files()),
                         [](const auto& info) { return info.param.stem().string(); });

}  // namespace
}  // namespace chorus
