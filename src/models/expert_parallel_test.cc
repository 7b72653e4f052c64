// Expert parallelism at the level of the model: dp replicas that share their experts, each over tp ranks, ranks as
// threads. Goal: the logits of a replica's sequence have the bits of the model on one rank, whatever the other replicas
// run, while experts move, and while a replica has nothing to do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <list>
#include <numeric>
#include <thread>

#include "layers/expert_balancer.h"
#include "models/registry.h"
#include "parallel/topology.h"

namespace chorus {
namespace {

std::byte* align(std::vector<std::byte>* memory) {
  return memory->data() + (64 - reinterpret_cast<std::uintptr_t>(memory->data()) % 64) % 64;
}

std::vector<int> positions_of(std::size_t count, int first) {
  std::vector<int> positions(count);
  std::iota(positions.begin(), positions.end(), first);
  return positions;
}

struct Setup {
  std::string model;
  Isa isa = Isa::scalar;
  int dp = 1, tp = 1;
  std::optional<EplbConfig> balancing;
  std::string directory() const { return std::string(CHORUS_TEST_DATA) + "/models/" + model; }
};

// One worker: a model, a KV cache for one sequence, and its groups. Alone (no transport) it is the model on one rank.
class Worker {
 public:
  explicit Worker(const Setup& setup, std::shared_ptr<Transport> transport = nullptr)
      : setup_(setup), tp_(Group::of_one()), ep_(Group::of_one()) {
    const auto config = read_model_config(setup.directory());
    EXPECT_TRUE(config.ok()) << config.error().message;
    config_ = *config;
    ExpertParallel ep;
    if (transport != nullptr) {
      ParallelConfig parallel;
      parallel.data_parallel_size = setup.dp;
      parallel.tensor_parallel_size = setup.tp;
      const auto topology = Topology::create(parallel, transport->size());
      tp_ = Group(transport, topology->tp_ranks(transport->rank()));
      ep_ = Group(transport, topology->ep_ranks(transport->rank()));
      if (setup.balancing) slots_.emplace(setup.isa, DType::bfloat16, setup.balancing->num_redundant_experts);
      ep = {ep_.rank(), ep_.size(), ExpertPlacementStrategy::linear, slots_ ? &*slots_ : nullptr};
    }
    const auto family = find_family(config_);
    parameters_.emplace(setup.isa, DType::bfloat16);
    ModelShard shard = whole_model(config_, {tp_.rank(), tp_.size()});
    shard.ep = ep;
    decoder_.emplace((*family)->make({*parameters_, shard, config_}));
    load();
  }

  // Logits of the tokens, [tokens, vocab], after a step that may be empty.
  std::vector<float> step(const std::vector<std::int32_t>& tokens) {
    const std::vector<std::int32_t> positions = positions_of(tokens.size(), length_);
    std::vector<std::int32_t> rows;  // all once for each rank: then the share of each is all of them
    for (int rank = 0; rank < tp_.size(); ++rank) {
      for (const std::int32_t row : positions_of(tokens.size(), 0)) rows.push_back(row);
    }
    std::vector<AttentionSequence> sequences;
    if (!tokens.empty()) sequences.push_back({0, length_, static_cast<std::int32_t>(tokens.size()), block_table_});
    std::vector<float> hidden(tokens.size() * static_cast<std::size_t>(config_.hidden_size));
    std::vector<float> logits;
    const LayerContext context{device_, tp_, ep_.size() > 1 ? &ep_ : nullptr, slots_ ? &*slots_ : nullptr};
    const View view = view_of(hidden.data(), static_cast<std::int64_t>(tokens.size()), config_.hidden_size);
    const StepInput step{tokens, positions, sequences, rows};
    const auto ran = decoder_->forward(context, *parameters_, rotary_, caches_, step, view);
    EXPECT_TRUE(ran.ok()) << ran.error().message;
    if (!tokens.empty()) {
      const Scratch::Scope scope(device_.scratch());
      const auto count = static_cast<std::int64_t>(rows.size());
      const View out = decoder_->logits(context, *parameters_, view, step, 0, count).value();
      logits.assign(out.floats(), out.floats() + out.rows * config_.vocab_size);
    }
    if (balancer_) {
      EXPECT_TRUE(balancer_->finish_step(ep_).ok());
    }
    length_ += static_cast<std::int32_t>(tokens.size());
    return logits;
  }

  const ExpertSlots& slots() const { return *slots_; }

 private:
  void load() {
    const auto checkpoint = open_checkpoint(setup_.directory());
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.error().message;
    arena_.resize(parameters_->arena_bytes() + 64);
    EXPECT_TRUE(parameters_->pack(**checkpoint, pool_, align(&arena_)).ok());
    EXPECT_TRUE(parameters_->bind(align(&arena_), parameters_->arena_bytes()).ok());
    if (slots_) {
      EXPECT_TRUE(slots_->load(**checkpoint, pool_).ok());
      balancer_.emplace(*setup_.balancing, ExpertBalancer::Site{}, *slots_);
    }
    rotary_ = make_rotary_tables(config_, config_.max_position_embeddings);
    const KvLayout layout = decoder_->kv().front().layout(16, KvDType::bfloat16);
    const auto blocks = static_cast<std::size_t>((config_.max_position_embeddings + 15) / 16);
    for (int layer = 0; layer < config_.num_hidden_layers; ++layer) {
      caches_.push_back({layout, align(&kv_.emplace_back(layout.block_bytes() * blocks + 64))});
    }
    block_table_ = positions_of(blocks, 0);
  }

  Setup setup_;
  ModelConfig config_;
  Group tp_, ep_;
  ThreadPool pool_{1};
  CpuDevice device_{pool_, setup_.isa};
  std::optional<ExpertSlots> slots_;
  std::optional<ExpertBalancer> balancer_;
  std::optional<Parameters> parameters_;
  std::optional<Decoder> decoder_;
  std::vector<RotaryTable> rotary_;
  std::vector<std::byte> arena_;
  std::list<std::vector<std::byte>> kv_;
  std::vector<KvCacheLayer> caches_;
  std::vector<std::int32_t> block_table_;
  std::int32_t length_ = 0;
};

// The sequence of replica `dp` in steps of different sizes; replica 1 often has nothing to do, and all end together.
std::vector<std::vector<std::int32_t>> steps_of(int dp) {
  const std::vector<std::size_t> sizes =
      dp % 2 == 0 ? std::vector<std::size_t>{5, 1, 1, 0, 2, 1} : std::vector<std::size_t>{0, 3, 0, 0, 1, 4};
  std::vector<std::vector<std::int32_t>> steps;
  std::int32_t token = 7 * dp;
  for (const std::size_t size : sizes) {
    auto& tokens = steps.emplace_back(size);
    for (std::int32_t& one : tokens) one = (token += 13) % 61;
  }
  return steps;
}

std::vector<std::vector<float>> run(Worker& worker, int dp) {
  std::vector<std::vector<float>> logits;
  for (const auto& tokens : steps_of(dp)) logits.push_back(worker.step(tokens));
  return logits;
}

// Whether the experts moved on any rank.
bool expect_bits_of_one_rank(const Setup& setup) {
  std::vector<std::vector<std::vector<float>>> expected;
  for (int dp = 0; dp < setup.dp; ++dp) {
    Worker alone(setup);
    expected.push_back(run(alone, dp));
  }
  const auto world = SharedWorld::create(setup.dp * setup.tp);
  std::vector<std::thread> ranks;
  std::vector<int> moved(static_cast<std::size_t>(setup.dp * setup.tp), 0);
  for (int rank = 0; rank < setup.dp * setup.tp; ++rank) {
    auto joined = world->join(rank, 60000);
    const std::shared_ptr<Transport> transport = std::move(*joined);
    ranks.emplace_back([&, rank, transport] {
      Worker worker(setup, transport);
      const ExpertPlacement first = setup.balancing ? worker.slots().placement(0) : ExpertPlacement();
      const int dp = rank / setup.tp;
      EXPECT_EQ(run(worker, dp), expected[static_cast<std::size_t>(dp)])
          << setup.model << " " << name_of(setup.isa) << " dp " << setup.dp << " tp " << setup.tp << " rank " << rank;
      if (setup.balancing) moved[static_cast<std::size_t>(rank)] = worker.slots().placement(0) == first ? 0 : 1;
    });
  }
  for (std::thread& rank : ranks) rank.join();
  return std::ranges::count(moved, 1) > 0;
}

class ExpertParallelModel : public testing::TestWithParam<std::string> {};

TEST_P(ExpertParallelModel, TheExpertParallelSizeChangesNoBit) {
  for (const Isa isa : available_isas()) {
    expect_bits_of_one_rank({GetParam(), isa, 2, 1, {}});
    expect_bits_of_one_rank({GetParam(), isa, 1, 2, {}});
    expect_bits_of_one_rank({GetParam(), isa, 2, 2, {}});
  }
  expect_bits_of_one_rank({GetParam(), available_isas().back(), 1, 4, {}});
  expect_bits_of_one_rank({GetParam(), available_isas().back(), 4, 1, {}});
}

TEST_P(ExpertParallelModel, MovingExpertsChangesNoBit) {
  for (const Isa isa : available_isas()) {
    EXPECT_TRUE(expect_bits_of_one_rank({GetParam(), isa, 2, 2, EplbConfig{3, 1, 4, false}})) << "nothing moved";
  }
}

INSTANTIATE_TEST_SUITE_P(Families, ExpertParallelModel, testing::Values("mixtral", "qwen3_moe", "phimoe"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace chorus
