// The promise of a mixture of experts, over ranks as threads: however the experts are cut, spread, replicated or moved,
// and whatever rows the other ranks have, a row's result has the bits of the layer on one rank.
#include "layers/moe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <thread>

#include "layers/expert_balancer.h"
#include "layers/expert_rebalance.h"

namespace chorus {
namespace {

constexpr std::int64_t hidden = 64;

struct World {
  int dp = 1, tp = 1;
  int size() const { return dp * tp; }
};

MoeLayer::Shape shape_of(int experts, int k) {
  return {hidden, 48, experts, k, {MoeRouting::softmax_top_k_normalized}};
}

// Counts the bytes that leave a rank.
class CountingTransport final : public Transport {
 public:
  explicit CountingTransport(std::unique_ptr<Transport> inner)
      : Transport(inner->rank(), inner->size(), inner->exchange_timeout_ms()), inner_(std::move(inner)) {}
  Result<void> begin(std::span<const Outgoing> outgoing, std::span<const Incoming> incoming) override {
    for (const Outgoing& piece : outgoing) sent_ += piece.bytes.size();
    return inner_->begin(outgoing, incoming);
  }
  Result<Moved> move() override { return inner_->move(); }
  Result<bool> has_byte(int peer) override { return inner_->has_byte(peer); }
  Result<void> rest(int peer, Nanoseconds until) override { return inner_->rest(peer, until); }
  Result<void> look() override { return inner_->look(); }
  std::string missing() const override { return inner_->missing(); }
  Error break_world(Error error) override { return inner_->break_world(std::move(error)); }
  void abort(const std::string& reason) override { inner_->abort(reason); }
  std::size_t sent() const { return sent_; }

 private:
  std::unique_ptr<Transport> inner_;
  std::size_t sent_ = 0;
};

// One rank with two layers of experts, their weights from a seed.
class Rank {
 public:
  // `spread`: the world's ranks are an expert-parallel group. `redundant` < 0: experts do not move.
  Rank(World world, std::shared_ptr<CountingTransport> transport, const MoeLayer::Shape& shape, bool spread,
       int redundant = -1, ExpertPlacementStrategy strategy = ExpertPlacementStrategy::linear)
      : transport_(std::move(transport)),
        dp_rank_(transport_ ? transport_->rank() / world.tp : 0),
        tp_(transport_, tp_members(world)),
        ep_(transport_, all_ranks(world)),
        parameters_(isa(), DType::bfloat16) {
    if (redundant >= 0) slots_.emplace(isa(), DType::bfloat16, redundant);
    ExpertParallel ep;
    if (spread) ep = {ep_.rank(), ep_.size(), strategy, slots_ ? &*slots_ : nullptr};
    spread_ = spread;
    for (const char* name : {"a", "b"}) {
      layers_.emplace_back(parameters_, TensorParallel{tp_.rank(), tp_.size()}, ep, name,
                           GatedMlp::Names{"gate", "up", "down"}, shape);
    }
    const auto checkpoint = make_dummy_checkpoint(3, DType::bfloat16);
    arena_.resize(parameters_.arena_bytes() + 64);
    std::byte* arena = arena_.data() + (64 - reinterpret_cast<std::uintptr_t>(arena_.data()) % 64) % 64;
    EXPECT_TRUE(parameters_.pack(*checkpoint, pool_, arena).ok());
    EXPECT_TRUE(parameters_.bind(arena, parameters_.arena_bytes()).ok());
    if (slots_) {
      EXPECT_TRUE(slots_->load(*checkpoint, pool_).ok());
    }
  }

  int dp_rank() const { return dp_rank_; }
  Group& ep() { return ep_; }
  ExpertSlots& slots() { return *slots_; }
  std::size_t bytes_sent() const { return transport_->sent(); }

  // Both layers over the rows x, as a decoder has them: each adds to the rows.
  std::vector<float> run(std::vector<float> x) {
    const LayerContext context{device_, tp_, spread_ ? &ep_ : nullptr, slots_ ? &*slots_ : nullptr};
    for (const MoeLayer& layer : layers_) {
      std::vector<float> input = x;
      const auto rows = static_cast<std::int64_t>(x.size()) / hidden;
      const ProductInput in{view_of(input.data(), rows, hidden)};
      const auto ran = layer.add_to(context, parameters_, in, view_of(x.data(), rows, hidden));
      EXPECT_TRUE(ran.ok()) << ran.error().message;
    }
    return x;
  }

 private:
  static Isa isa() { return available_isas().back(); }
  static std::vector<int> all_ranks(World world) {
    std::vector<int> ranks(static_cast<std::size_t>(world.size()));
    std::iota(ranks.begin(), ranks.end(), 0);
    return ranks;
  }
  std::vector<int> tp_members(World world) const {
    std::vector<int> ranks(static_cast<std::size_t>(world.tp));
    std::iota(ranks.begin(), ranks.end(), dp_rank_ * world.tp);
    return ranks;
  }

  std::shared_ptr<CountingTransport> transport_;
  int dp_rank_;
  Group tp_, ep_;
  bool spread_ = false;
  ThreadPool pool_{1};
  CpuDevice device_{pool_, isa()};
  Parameters parameters_;
  std::optional<ExpertSlots> slots_;
  std::vector<MoeLayer> layers_;
  std::vector<std::byte> arena_;
};

void on_all_ranks(World world, const std::function<void(std::shared_ptr<CountingTransport>)>& run) {
  const auto shared = SharedWorld::create(world.size());
  ASSERT_TRUE(shared.ok()) << shared.error().message;
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < world.size(); ++rank) {
    auto joined = shared->join(rank, 60000);
    ASSERT_TRUE(joined.ok()) << joined.error().message;
    ranks.emplace_back(run, std::make_shared<CountingTransport>(std::move(*joined)));
  }
  for (std::thread& rank : ranks) rank.join();
}

std::vector<float> make_rows(unsigned seed, std::size_t rows) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> x(rows * hidden);
  for (float& value : x) value = uniform(random);
  return x;
}

std::vector<float> expected_of(const MoeLayer::Shape& shape, const std::vector<float>& x) {
  return Rank({1, 1}, nullptr, shape, false).run(x);
}

// 19 rows are reduced at once; 400 rows of 3 outputs each are many enough to be scattered.
TEST(MoeLayer, CutOverTensorParallelRanksHasTheBitsOfOneRank) {
  const auto shape = shape_of(6, 3);
  for (const std::size_t rows : {19U, 401U}) {
    const auto x = make_rows(1, rows);
    const auto expected = expected_of(shape, x);
    ASSERT_NE(expected, x);
    for (const int tp : {2, 4}) {
      on_all_ranks({1, tp}, [&](auto transport) {
        Rank rank({1, tp}, transport, shape, false);
        EXPECT_EQ(rank.run(x), expected) << "tp " << tp;
        EXPECT_TRUE(rank.run({}).empty());
      });
    }
  }
}

// Goal: a row's bits do not depend on where experts live or on other ranks' rows. Method: dp ranks with different
// numbers of rows, some without any, fewer rows than tp ranks, experts that do not divide by the ranks, more ranks than
// experts.
TEST(MoeLayer, SpreadOverExpertParallelRanksHasTheBitsOfOneRank) {
  const World worlds[] = {{1, 2}, {3, 1}, {2, 2}, {3, 2}};
  for (const int experts : {3, 6}) {
    const auto shape = shape_of(experts, 3);
    for (const World world : worlds) {
      for (const auto strategy : {ExpertPlacementStrategy::linear, ExpertPlacementStrategy::round_robin}) {
        on_all_ranks(world, [&](auto transport) {
          Rank rank(world, transport, shape, true, -1, strategy);
          const std::size_t row_counts[][4] = {{9, 4, 1, 13}, {0, 1, 0, 5}, {3, 0, 17, 0}, {0, 0, 0, 0}};
          for (const auto& rows : row_counts) {
            const auto x = make_rows(static_cast<unsigned>(rank.dp_rank()), rows[rank.dp_rank()]);
            EXPECT_EQ(rank.run(x), expected_of(shape, x))
                << experts << " experts, dp " << world.dp << " tp " << world.tp;
          }
        });
      }
    }
  }
}

TEST(MoeLayer, MovingExpertsChangesNoBit) {
  const auto shape = shape_of(6, 2);
  const World world{2, 2};
  std::vector<int> rearrangements(4), changed(4);
  on_all_ranks(world, [&](auto transport) {
    Rank rank(world, transport, shape, true, 6);
    const auto self = static_cast<std::size_t>(transport->rank());
    ExpertBalancer balancer({4, 2, 6, true}, {}, rank.slots());
    for (unsigned step = 0; step < 12; ++step) {
      const std::size_t rows = rank.dp_rank() == 1 && step % 3 == 0 ? 0 : step + 1;
      const auto x = make_rows(100 * static_cast<unsigned>(rank.dp_rank()) + step, rows);
      EXPECT_EQ(rank.run(x), expected_of(shape, x)) << "step " << step;
      const ExpertPlacement before = rank.slots().placement(0);
      const auto finished = balancer.finish_step(rank.ep());
      EXPECT_TRUE(finished.ok()) << finished.error().message;
      if (!(rank.slots().placement(0) == before)) ++changed[self];
    }
    rearrangements[self] = balancer.rearrangements();
  });
  EXPECT_THAT(rearrangements, testing::Each(6));
  EXPECT_THAT(changed, testing::Each(testing::Gt(0)));
}

// Goal: any placement can follow any other, and a slot then holds what it should. Method: random placements; a wrong
// byte in any slot changes the result of the rows that go there.
TEST(MoeLayer, AnyPlacementCanFollowAnyOther) {
  const auto shape = shape_of(5, 2);
  const World world{3, 1};
  on_all_ranks(world, [&](auto transport) {
    Rank rank(world, transport, shape, true, 4);
    std::mt19937 random(5);  // the same on all ranks
    for (unsigned round = 0; round < 20; ++round) {
      std::vector<int> slots = {0, 1, 2, 3, 4};
      while (slots.size() < 9) slots.push_back(static_cast<int>(random() % 5));
      std::shuffle(slots.begin(), slots.end(), random);
      const ExpertPlacement next(5, {{slots.begin(), slots.begin() + 3},
                                     {slots.begin() + 3, slots.begin() + 6},
                                     {slots.begin() + 6, slots.end()}});
      for (int layer = 0; layer < 2; ++layer) {
        const auto moved = rank.slots().rearrange(rank.ep(), layer, next);
        EXPECT_TRUE(moved.ok()) << moved.error().message;
      }
      const auto x = make_rows(10 * round + static_cast<unsigned>(rank.dp_rank()), 12);
      EXPECT_EQ(rank.run(x), expected_of(shape, x)) << "round " << round;
    }
  });
}

// Goal: the volume that moe.h states is the volume that is sent. Method: two ranks with an expert each, every row
// chooses both, so of each row one record goes to the other rank and one output comes back.
TEST(MoeLayer, SendsTheStatedVolume) {
  const World world{2, 1};
  on_all_ranks(world, [&](auto transport) {
    Rank rank(world, transport, shape_of(2, 2), true);
    const std::size_t own = rank.dp_rank() == 0 ? 7 : 4, others = 11 - own;
    rank.run(make_rows(1, own));
    const std::size_t layers = 2, counts = 8;
    EXPECT_EQ(rank.bytes_sent(), layers * (counts + own * (4 * hidden + 4 * 2) + others * 4 * hidden));
  });
}

// By hand: DeepSeek-V3's router over two groups of three, of which one is kept.
TEST(Routing, KeepsTheBestGroupsAndWeighsWithoutTheCorrection) {
  const float correction[] = {0, 0, 0, 0.5F, 0, 0};
  std::vector<ExpertChoice> choices(2);
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  MoeRouter router{MoeRouting::group_sigmoid, 0, 2, 1, true, 2.5};
  // Two best of the groups: 0.88 + 0.5, and (0.5 + 0.5) + 0.73 with the correction.
  std::vector<float> logits = {2, 0, -1, 0, 1, -3};
  route(router, correction, logits, choices);
  EXPECT_EQ(choices[0].expert, 3);
  EXPECT_EQ(choices[1].expert, 4);
  const double sum = sigmoid(0) + sigmoid(1);
  EXPECT_NEAR(choices[0].weight, 2.5 * sigmoid(0) / sum, 1e-6);
  EXPECT_NEAR(choices[1].weight, 2.5 * sigmoid(1) / sum, 1e-6);

  // V2: the group of the best expert, probabilities of all as they are.
  router = {MoeRouting::group_softmax, 0, 2, 1, false, 1};
  logits = {2, 0, -1, 0, 1, -3};
  route(router, nullptr, logits, choices);
  double total = 0;
  for (const double logit : {2, 0, -1, 0, 1, -3}) total += std::exp(logit);
  EXPECT_EQ(choices[0].expert, 0);
  EXPECT_EQ(choices[1].expert, 1);
  EXPECT_NEAR(choices[0].weight, std::exp(2) / total, 1e-6);
  EXPECT_NEAR(choices[1].weight, 1 / total, 1e-6);
}

}  // namespace
}  // namespace chorus
