// Every collective against a naive one, to the bit: over every backend, for 1 to 8 ranks as threads and as processes,
// and sizes from nothing to tens of MiB.
#include <gtest/gtest.h>

#include <cstring>

#include "testing/group_testing.h"

namespace chorus {
namespace {

enum class Kind { threads, processes };

// The byte that rank `from` has for rank `to` at `i`: anyone can tell what everyone sends.
std::byte byte_of(int from, int to, std::size_t i) {
  const std::size_t mixed =
      (i * 2654435761U + static_cast<std::size_t>(from) * 977 + static_cast<std::size_t>(to) * 31);
  return static_cast<std::byte>(mixed >> 7);
}

std::vector<std::byte> bytes_of(int from, int to, std::size_t count) {
  std::vector<std::byte> bytes(count);
  for (std::size_t i = 0; i < count; ++i) bytes[i] = byte_of(from, to, i);
  return bytes;
}

// Numbers whose sum depends on the order in which they are added.
float float_of(int rank, std::size_t i) {
  const auto r = static_cast<std::size_t>(rank);
  return static_cast<float>((i * 37 + r * 101) % 977) * (r % 3 == 0 ? 1e6F : r % 3 == 1 ? 1e-3F : -9.9e5F);
}

std::vector<float> floats_of(int rank, std::size_t count) {
  std::vector<float> floats(count);
  for (std::size_t i = 0; i < count; ++i) floats[i] = float_of(rank, i);
  return floats;
}

float naive_tree(int first, int ranks, std::size_t i) {
  if (ranks == 1) return float_of(first, i);
  return naive_tree(first, ranks / 2, i) + naive_tree(first + ranks / 2, ranks / 2, i);
}

void append(std::vector<std::byte>* all, const std::vector<std::byte>& more) {
  all->insert(all->end(), more.begin(), more.end());
}

#define EXPECT_RANK(condition, ...) \
  if (!(condition)) return fmt::format("" __VA_ARGS__)
#define RANK_OK(expression) \
  if (auto done = (expression); !done.ok()) return fmt::format("{}: {}", #expression, done.error().message)

std::string check_sums(Group& group, std::size_t count) {
  std::vector<float> data = floats_of(group.rank(), count);
  RANK_OK(group.all_reduce_tree(data));
  for (std::size_t i = 0; i < count; ++i) {
    const float expected = naive_tree(0, group.size(), i);
    EXPECT_RANK(std::memcmp(&data[i], &expected, sizeof(float)) == 0, "all_reduce of {}: [{}] is {}, not {}", count, i,
                data[i], expected);
  }
  // Uneven parts: the last rank gets the rest, rank 0 nothing when there are several.
  const auto ranks = static_cast<std::size_t>(group.size());
  std::vector<std::size_t> counts(ranks, count / ranks);
  counts.back() += counts[0] + count % ranks;
  counts[0] = ranks == 1 ? count : 0;
  std::size_t offset = 0;
  for (int r = 0; r < group.rank(); ++r) offset += counts[static_cast<std::size_t>(r)];
  data = floats_of(group.rank(), count);
  std::vector<float> out(counts[static_cast<std::size_t>(group.rank())]);
  RANK_OK(group.reduce_scatter_tree(data, counts, out));
  for (std::size_t i = 0; i < out.size(); ++i) {
    EXPECT_RANK(out[i] == naive_tree(0, group.size(), offset + i), "reduce_scatter of {}: [{}] is {}", count,
                offset + i, out[i]);
  }
  return {};
}

std::string check_gathers(Group& group, std::size_t count) {
  const int rank = group.rank();
  const auto ranks = static_cast<std::size_t>(group.size());
  std::vector<std::byte> expected, out(count * ranks);
  for (int r = 0; r < group.size(); ++r) append(&expected, bytes_of(r, 0, count));
  RANK_OK(group.all_gather_bytes(bytes_of(rank, 0, count), out));
  EXPECT_RANK(out == expected, "all_gather of {}", count);
  // In place.
  std::ranges::fill(out, std::byte{});
  const auto own = std::span(out).subspan(static_cast<std::size_t>(rank) * count, count);
  std::ranges::copy(bytes_of(rank, 0, count), own.begin());
  RANK_OK(group.all_gather_bytes(own, out));
  EXPECT_RANK(out == expected, "all_gather of {} in place", count);

  std::vector<std::size_t> sizes(ranks);
  expected.clear();
  for (std::size_t r = 0; r < ranks; ++r) {
    sizes[r] = r % 3 == 2 ? 0 : count + r;
    append(&expected, bytes_of(static_cast<int>(r), 1, sizes[r]));
  }
  const auto in = bytes_of(rank, 1, sizes[static_cast<std::size_t>(rank)]);
  out.assign(expected.size(), std::byte{});
  RANK_OK(group.all_gather_v(in, sizes, out));
  EXPECT_RANK(out == expected, "all_gather_v of {}", count);
  return {};
}

std::string check_all_to_all(Group& group, std::size_t count) {
  // Sizes differ by pair, some are 0.
  const auto size_of = [&](int from, int to) {
    return (from + 2 * to) % 4 == 3 ? 0 : count + static_cast<std::size_t>(from * 3 + to);
  };
  std::vector<std::size_t> to_sizes, from_sizes;
  std::vector<std::byte> in, expected;
  for (int r = 0; r < group.size(); ++r) {
    to_sizes.push_back(size_of(group.rank(), r));
    from_sizes.push_back(size_of(r, group.rank()));
    append(&in, bytes_of(group.rank(), r, to_sizes.back()));
    append(&expected, bytes_of(r, group.rank(), from_sizes.back()));
  }
  std::vector<std::byte> out(expected.size());
  RANK_OK(group.all_to_all_v(in, to_sizes, out, from_sizes));
  EXPECT_RANK(out == expected, "all_to_all_v of {}", count);
  return {};
}

std::string check_broadcasts(Group& group, std::size_t count) {
  const int root = group.size() / 2;
  const bool sends = group.rank() == root;
  const auto expected = bytes_of(root, 5, count);
  auto data = sends ? expected : std::vector<std::byte>(count);
  RANK_OK(group.broadcast(data, root));
  EXPECT_RANK(data == expected, "broadcast of {}", count);

  const std::string text(reinterpret_cast<const char*>(expected.data()), count);
  std::string message = sends ? text : "before";
  RANK_OK(group.broadcast_message(&message, root, count));
  EXPECT_RANK(message == text, "broadcast_message of {}", count);
  return {};
}

// Around the ring: even ranks send first, so that no call is matched by its own kind.
std::string check_point_to_point(Group& group, std::size_t count) {
  const int next = (group.rank() + 1) % group.size(), previous = (group.rank() + group.size() - 1) % group.size();
  if (group.size() % 2 != 0) return {};
  const auto out = bytes_of(group.rank(), next, count);
  const std::string message(reinterpret_cast<const char*>(out.data()), count);
  std::vector<std::byte> in(count);
  std::string received;
  for (const bool sends : {group.rank() % 2 == 0, group.rank() % 2 != 0}) {
    if (sends) {
      RANK_OK(group.send(out, next));
      RANK_OK(group.send_message(message, next));
    } else {
      RANK_OK(group.receive(in, previous));
      RANK_OK(group.receive_message(&received, previous, count));
    }
  }
  EXPECT_RANK(in == bytes_of(previous, group.rank(), count), "receive of {}", count);
  EXPECT_RANK(std::ranges::equal(received, in, {}, [](char c) { return static_cast<std::byte>(c); }),
              "receive_message of {}", count);
  return {};
}

std::string check_all(Group& group, std::size_t count) {
  if ((group.size() & (group.size() - 1)) == 0) {
    if (auto failure = check_sums(group, count); !failure.empty()) return failure;
  }
  for (const auto check : {check_gathers, check_all_to_all, check_broadcasts, check_point_to_point}) {
    if (auto failure = check(group, count); !failure.empty()) return failure;
    RANK_OK(group.barrier());
  }
  return {};
}

class Collectives : public testing::TestWithParam<std::tuple<Backend, Kind, int>> {
 protected:
  std::string run(const TransportFunction& function) const {
    const auto [backend, kind, size] = GetParam();
    const TestWorld world = make_test_world(backend, size);
    return kind == Kind::threads ? run_as_threads(world, function) : run_as_processes(world, function);
  }
};

TEST_P(Collectives, EqualTheNaiveOnesToTheBit) {
  EXPECT_EQ(run(with_group([](Group& group) -> std::string {
              for (const std::size_t count : {0, 1, 17, 4099, 20'011, 100'003}) {
                if (auto failure = check_all(group, count); !failure.empty()) return failure;
              }
              return {};
            })),
            "");
}

// Goal: groups over one transport do not disturb each other. Method: halves {0, 2, ..} and {1, 3, ..} and the world in
// turn.
TEST_P(Collectives, OfSubgroupsShareATransport) {
  EXPECT_EQ(run([](const std::shared_ptr<Transport>& transport) -> std::string {
              std::vector<int> members;
              for (int rank = transport->rank() % 2; rank < transport->size(); rank += 2) members.push_back(rank);
              Group half(transport, members), whole = group_of_all(transport);
              for (int round = 0; round < 3; ++round) {
                for (Group* group : {&half, &whole, &half}) {
                  if (auto failure = check_gathers(*group, 1001); !failure.empty()) return failure;
                  if (auto failure = check_all_to_all(*group, 77); !failure.empty()) return failure;
                }
              }
              return {};
            }),
            "");
}

std::string name_of_case(const testing::TestParamInfo<std::tuple<Backend, Kind, int>>& info) {
  const auto [backend, kind, size] = info.param;
  return fmt::format("{}{}{}", name_of(backend), kind == Kind::threads ? "Threads" : "Processes", size);
}

INSTANTIATE_TEST_SUITE_P(Worlds, Collectives,
                         testing::Combine(testing::ValuesIn(all_backends),
                                          testing::Values(Kind::threads, Kind::processes), testing::Range(1, 9)),
                         name_of_case);

class LongCollectives : public testing::TestWithParam<Backend> {};

// 64 MiB in two processes and four threads: far more than rings or sockets hold.
TEST_P(LongCollectives, EqualTheNaiveOnesToTheBit) {
  const auto sums = [](std::size_t count) {
    return with_group([=](Group& group) { return check_sums(group, count); });
  };
  const auto world = [](int size) { return make_test_world(GetParam(), size); };
  EXPECT_EQ(run_as_processes(world(2), sums((std::size_t{16} << 20) + 3)), "");
  EXPECT_EQ(run_as_threads(world(4), sums((std::size_t{4} << 20) + 3)), "");
  const auto broadcasts = with_group([](Group& group) { return check_broadcasts(group, std::size_t{64} << 20); });
  EXPECT_EQ(run_as_processes(world(2), broadcasts), "");
}

INSTANTIATE_TEST_SUITE_P(Worlds, LongCollectives, testing::ValuesIn(all_backends),
                         [](const auto& info) { return name_of(info.param); });

}  // namespace
}  // namespace chorus
