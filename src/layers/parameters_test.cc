#include "layers/parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chorus {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::uint64_t seed = 7;

// Element [row, column] of a dummy tensor.
float dummy(const std::string& name, std::int64_t columns, std::int64_t row, std::int64_t column) {
  std::byte bytes[4];
  fill_dummy(seed, name, DType::float32, static_cast<std::uint64_t>(row * columns + column), 1, bytes);
  return load_as_float(bytes, DType::float32, 0);
}

// One of each kind: rank 1's share of stacked k and v, of a matrix that is cut by columns, of a table and of a bias.
Parameters declare(Isa isa) {
  Parameters parameters(isa, DType::float32);
  parameters.add_linear({6, 8, 1}, {{"k.weight", {8, 8}, 4, 4, 0}, {"v.weight", {4, 8}, 2, 2, 0}});
  parameters.add_linear({3, 8, 2}, {{"o.weight", {3, 16}, 0, 3, 8}});
  parameters.add_table(4, 5, {{"embedding", {8, 5}, 4, 4, 0}});
  parameters.add_vector(6, {{"k.shift", {8}, 4, 4, 0}, {"v.shift", {4}, 2, 2, 0}});
  return parameters;
}

TEST(NamedParameters, NameEveryTensorOfEveryParameter) {
  std::vector<std::string> names;
  for (const NamedParameter& named : declare(Isa::scalar).named_parameters()) {
    names.push_back(named.name);
    EXPECT_EQ(named.data, nullptr) << named.name;
  }
  EXPECT_THAT(names, ElementsAre("k.weight", "v.weight", "o.weight", "embedding", "k.shift", "v.shift"));
  EXPECT_THAT(Parameters(Isa::scalar, DType::float32).named_parameters(), IsEmpty());
}

// Goal: what a named parameter says of its slice is what lies there. Method: pack from a checkpoint whose elements are
// known, and compare each element of each slice.
TEST(NamedParameters, ReadTheSliceOfTheCheckpoint) {
  const auto checkpoint = make_dummy_checkpoint(seed, DType::float32);
  ThreadPool pool(1);
  for (const Isa isa : available_isas()) {
    Parameters parameters = declare(isa);
    std::vector<std::byte> arena(parameters.arena_bytes());
    ASSERT_TRUE(parameters.pack(*checkpoint, pool, arena.data()).ok());
    ASSERT_TRUE(parameters.bind(arena.data(), arena.size()).ok());
    for (const NamedParameter& named : parameters.named_parameters()) {
      EXPECT_GE(named.data, arena.data());
      EXPECT_LT(named.data, arena.data() + arena.size());
      const std::int64_t columns = named.shape.size() == 1 ? 1 : named.shape.back();
      std::vector<float> row(static_cast<std::size_t>(named.column_count));
      for (std::int64_t r = 0; r < named.row_count; ++r) {
        parameters.read_row(named, r, row.data());
        for (std::int64_t c = 0; c < named.column_count; ++c) {
          EXPECT_EQ(row[static_cast<std::size_t>(c)],
                    dummy(named.name, columns, named.first_row + r, named.first_column + c))
              << named.name << " [" << r << ", " << c << "] for " << name_of(isa);
        }
      }
    }
  }
}

// Where each row is packed, told apart by its first element.
std::vector<float> packed_rows(const Parameters& parameters, ParameterId id) {
  const PackedLinear weight = parameters.linear(id);
  std::vector<float> firsts, row(static_cast<std::size_t>(weight.shape.columns));
  for (std::int64_t r = 0; r < weight.shape.rows; ++r) {
    unpack_linear_row(weight, r, row.data());
    firsts.push_back(row[0]);
  }
  return firsts;
}

TEST(HeadRows, StandInFrontAsHalvesAndAreNamedAsTheyWere) {
  const auto checkpoint = make_dummy_checkpoint(seed, DType::float32);
  ThreadPool pool(1);
  Parameters parameters(Isa::scalar, DType::float32);
  // Heads of 6 rows of which 4 turn by neighbours, the last ones.
  const ParameterId id = parameters.add_linear({12, 4, 1}, {{"q", {24, 4}, 12, 12, 0, {6, 2, 4}}});
  const ParameterId turned = parameters.add_linear({3, 4, 1}, {{"t", {2, 4, 8}, 1, 3, 4, {}, true, 2}});
  std::vector<std::byte> arena(parameters.arena_bytes());
  ASSERT_TRUE(parameters.pack(*checkpoint, pool, arena.data()).ok());
  ASSERT_TRUE(parameters.bind(arena.data(), arena.size()).ok());
  std::vector<float> expected;
  for (const int row : {14, 16, 15, 17, 12, 13, 20, 22, 21, 23, 18, 19}) expected.push_back(dummy("q", 4, row, 0));
  EXPECT_EQ(packed_rows(parameters, id), expected);
  const NamedParameter named = parameters.named_parameters().front();
  for (std::int64_t r = 0; r < 12; ++r) {
    float row[4];
    parameters.read_row(named, r, row);
    EXPECT_EQ(row[3], dummy("q", 4, 12 + r, 3)) << r;
  }
  // Columns 1, 3 and 5 of the second of two matrices [4, 8].
  std::vector<float> row(4);
  for (std::int64_t r = 0; r < 3; ++r) {
    unpack_linear_row(parameters.linear(turned), r, row.data());
    for (std::int64_t c = 0; c < 4; ++c)
      EXPECT_EQ(row[static_cast<std::size_t>(c)], dummy("t", 8, 4 + c, 1 + 2 * r)) << r << " " << c;
  }
}

}  // namespace
}  // namespace chorus
