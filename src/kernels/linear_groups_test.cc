#include "kernels/linear_groups.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/linear_groups_pack.h"
#include "kernels/linear_test_util.h"

namespace chorus {
namespace {

constexpr LinearFormat::Kind kinds[] = {LinearFormat::int8, LinearFormat::int4, LinearFormat::int4_minimum,
                                        LinearFormat::int4_zero};

struct NamedKernel {
  const char* name;
  const LinearKernel* kernel;
};
std::vector<NamedKernel> fast_kernels() {
  std::vector<NamedKernel> found;
  if (std::ranges::find(available_isas(), Isa::avx2_f32) != available_isas().end()) {
    found.push_back({"avx2", &group_kernel_avx2()});
  }
  if (has_vnni()) found.push_back({"vnni", &group_kernel_vnni()});
  if (has_amx_int8()) found.push_back({"amx", &group_kernel_amx()});
  return found;
}

std::vector<float> multiply(const LinearKernel& kernel, ThreadPool& pool, const PackedLinear& weight, const float* x,
                            std::int64_t m, std::int64_t ldx, const LinearEpilogue& epilogue = {}) {
  Scratch scratch;
  std::vector<float> y(static_cast<std::size_t>(m * weight.shape.rows), 0.25F);
  linear_with(kernel, pool, scratch, weight, {x, m, ldx}, y.data(), weight.shape.rows, epilogue);
  return y;
}

// Bits, so that NaN is itself.
bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Goal: the same bits from every kernel, for every tail of rows, columns, segments and m. Method: random shapes against
// the scalar kernel, on one thread and two, with a bias and added to what is there.
TEST(LinearGroups, AllKernelsGiveTheBitsOfTheScalarOne) {
  std::mt19937 generator(1);
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(generator);
  };
  ThreadPool one(1), two(2);
  for (int round = 0; round < 120; ++round) {
    const int segments = 1 << draw(0, 3);
    const LinearShape shape{draw(1, 100), segments * draw(1, 400 / segments), segments};
    const std::int64_t m = draw(1, round % 3 == 0 ? 80 : 20), ldx = shape.columns + draw(0, 3);
    const LinearFormat format = kinds[round % 4];
    const SourceMatrix source(DType::bfloat16, shape.rows, shape.columns, static_cast<std::uint32_t>(round));
    const PackedMatrix packed(Isa::scalar, format, shape, source);
    const std::vector<float> x = random_floats(m * ldx, 99), bias = random_floats(shape.rows, 7);
    const LinearEpilogue epilogue{round % 2 == 0 ? bias.data() : nullptr, round % 5 == 0};
    const auto expected = multiply(group_kernel_scalar(), one, packed.view, x.data(), m, ldx, epilogue);
    for (const NamedKernel& fast : fast_kernels()) {
      for (ThreadPool* pool : {&one, &two}) {
        EXPECT_TRUE(same_bits(multiply(*fast.kernel, *pool, packed.view, x.data(), m, ldx, epilogue), expected))
            << fast.name << " " << name_of(format) << " " << shape.rows << " x " << shape.columns << " in " << segments
            << ", m " << m;
      }
    }
  }
}

// Goal: the formula of linear_groups.h. Method: in double from W as it is unpacked and x rounded here; float32 sums of
// n groups are within gamma_n (Higham, section 3.1), each term of at most three roundings.
TEST(LinearGroups, IsTheProductOfWhatTheCodesStandFor) {
  constexpr LinearShape shape{40, 4 * 100, 4};
  constexpr std::int64_t m = 3;
  ThreadPool pool(1);
  const SourceMatrix source(DType::float32, shape.rows, shape.columns, 3);
  const std::vector<float> x = random_floats(m * shape.columns, 4);
  std::vector<double> rounded(x.size());
  for (std::size_t segment = 0; segment < x.size(); segment += 100) {
    for (std::size_t first = 0; first < 100; first += 32) {
      float largest = 0;
      for (std::size_t k = first; k < std::min<std::size_t>(first + 32, 100); ++k) {
        largest = std::max(largest, std::abs(x[segment + k]));
      }
      for (std::size_t k = first; k < std::min<std::size_t>(first + 32, 100); ++k) {
        rounded[segment + k] = std::nearbyint(x[segment + k] * (127 / largest)) * static_cast<double>(largest / 127);
      }
    }
  }
  for (const LinearFormat::Kind kind : kinds) {
    const PackedMatrix packed(Isa::scalar, kind, shape, source);
    const auto y = multiply(group_kernel_scalar(), pool, packed.view, x.data(), m, shape.columns);
    std::vector<float> w(static_cast<std::size_t>(shape.columns));
    for (std::int64_t row = 0; row < shape.rows; ++row) {
      unpack_linear_row(packed.view, row, w.data());
      for (std::int64_t i = 0; i < m; ++i) {
        double sum = 0, magnitude = 0;
        for (std::int64_t k = 0; k < shape.columns; ++k) {
          const double product = rounded[static_cast<std::size_t>(i * shape.columns + k)] *
                                 static_cast<double>(w[static_cast<std::size_t>(k)]);
          sum += product;
          magnitude += std::abs(product);
        }
        EXPECT_NEAR(static_cast<double>(y[static_cast<std::size_t>(i * shape.rows + row)]), sum,
                    64 * 0x1p-24 * (magnitude + 10))
            << name_of(LinearFormat(kind));
      }
    }
  }
}

// Goal: a row's bits depend on that row alone. Method: every row of a batch by itself.
TEST(LinearGroups, ARowDoesNotDependOnItsBatch) {
  constexpr LinearShape shape{70, 2 * 96, 2};
  constexpr std::int64_t m = 37;
  ThreadPool pool(1);
  const SourceMatrix source(DType::bfloat16, shape.rows, shape.columns, 5);
  const std::vector<float> x = random_floats(m * shape.columns, 6);
  std::vector<NamedKernel> kernels = fast_kernels();
  kernels.push_back({"scalar", &group_kernel_scalar()});
  for (const LinearFormat::Kind kind : kinds) {
    const PackedMatrix packed(Isa::scalar, kind, shape, source);
    for (const NamedKernel& one : kernels) {
      const auto all = multiply(*one.kernel, pool, packed.view, x.data(), m, shape.columns);
      for (std::int64_t row = 0; row < m; ++row) {
        const auto alone = multiply(*one.kernel, pool, packed.view, x.data() + row * shape.columns, 1, shape.columns);
        EXPECT_TRUE(std::equal(alone.begin(), alone.end(), all.begin() + row * shape.rows)) << one.name << " " << row;
      }
    }
  }
}

// Goal: tensor parallelism changes no bit. Method: two halves of the columns with half of the segments each, added.
TEST(LinearGroups, HalvesOfTheSegmentsAddUpToTheWhole) {
  constexpr LinearShape whole{33, 8 * 40, 8}, half{33, 4 * 40, 4};
  ThreadPool pool(1);
  const std::vector<float> x = random_floats(whole.columns, 6);
  for (const LinearFormat::Kind kind : kinds) {
    SourceMatrix source(DType::bfloat16, whole.rows, whole.columns, 5);
    const PackedMatrix all(Isa::scalar, kind, whole, source), left(Isa::scalar, kind, half, source);
    source.first_column = half.columns;
    const PackedMatrix right(Isa::scalar, kind, half, source);
    const auto expected = multiply(group_kernel_scalar(), pool, all.view, x.data(), 1, whole.columns);
    auto sum = multiply(group_kernel_scalar(), pool, left.view, x.data(), 1, half.columns);
    const auto other = multiply(group_kernel_scalar(), pool, right.view, x.data() + half.columns, 1, half.columns);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += other[i];
    EXPECT_TRUE(same_bits(sum, expected)) << name_of(LinearFormat(kind));
  }
}

// Goal: what the codes stand for is within half a step of the value, in any range of binary16's.
TEST(LinearGroups, AGroupIsWithinHalfAStep) {
  for (const float magnitude : {1.0F, 3e-3F, 1e-4F, 900.0F}) {
    std::vector<float> values = random_floats(group_columns, 8);
    for (float& value : values) value *= magnitude;
    for (const LinearFormat::Kind kind : kinds) {
      const LinearGroup group = quantise_group(kind, values.data(), group_columns);
      const float scale = half_to_float(group.scale);
      const float minimum = half_to_float(group.minimum) * (kind == LinearFormat::int4_zero ? scale : 1.0F);
      // int4 cuts off what is at the other end of 15 steps than its largest; a zero point is rounded to a step.
      const float steps = kind == LinearFormat::int8 ? 0.51F : kind == LinearFormat::int4_minimum ? 0.55F : 1.01F;
      for (int k = 0; k < group_columns; ++k) {
        const int code = group.codes[k] - (kind == LinearFormat::int4 ? 8 : 0);
        EXPECT_NEAR(static_cast<float>(code) * scale + minimum, values[static_cast<std::size_t>(k)],
                    steps * std::abs(scale))
            << name_of(LinearFormat(kind)) << " " << magnitude;
      }
    }
  }
}

// Goal: a row of x that has a NaN or an infinity gives NaN, and no other row does; zeros and the smallest floats give
// 0.
TEST(LinearGroups, WhatIsNoNumberStaysInItsRow) {
  constexpr LinearShape shape{20, 64, 1};
  constexpr std::int64_t m = 18;
  ThreadPool pool(1);
  const SourceMatrix source(DType::bfloat16, shape.rows, shape.columns, 5);
  std::vector<float> x = random_floats(m * shape.columns, 6);
  x[3 * 64 + 40] = std::numeric_limits<float>::quiet_NaN();
  x[4 * 64 + 1] = -std::numeric_limits<float>::infinity();
  std::fill_n(x.begin() + 5 * 64, 64, 0.0F);
  std::fill_n(x.begin() + 6 * 64, 64, std::numeric_limits<float>::denorm_min());
  std::vector<NamedKernel> kernels = fast_kernels();
  kernels.push_back({"scalar", &group_kernel_scalar()});
  for (const LinearFormat::Kind kind : kinds) {
    const PackedMatrix packed(Isa::scalar, kind, shape, source);
    for (const NamedKernel& one : kernels) {
      const auto y = multiply(*one.kernel, pool, packed.view, x.data(), m, shape.columns);
      for (std::int64_t row = 0; row < m; ++row) {
        for (std::int64_t n = 0; n < shape.rows; ++n) {
          const float value = y[static_cast<std::size_t>(row * shape.rows + n)];
          EXPECT_EQ(std::isnan(value), row == 3 || row == 4) << one.name << " " << row;
          EXPECT_TRUE((row != 5 && row != 6) || value == 0.0F);
        }
      }
    }
  }
}

// Groups of a file: codes at both ends, -128 too.
class ExtremeGroups final : public LinearGroups {
 public:
  LinearGroup read(std::int64_t row, std::int64_t first, LinearFormat::Kind kind) const override {
    LinearGroup group;
    for (int k = 0; k < group_columns; ++k) {
      const bool odd = (row % 2 + first / group_columns + k) % 2 != 0;
      group.codes[k] = static_cast<std::int8_t>(kind == LinearFormat::int8 ? (odd ? 127 : -128) : (odd ? 15 : 0));
    }
    group.scale = 0x3c00;                           // 1
    if (has_minimum(kind)) group.minimum = 0xc000;  // -2
    return group;
  }
};

// Goal: the largest codes against the largest x leave no kernel's range. Method: rows of +-1, and the sums by hand.
TEST(LinearGroups, ExtremeCodesFitEveryKernel) {
  constexpr LinearShape shape{32, 96, 1};
  const ExtremeGroups groups;
  const auto source = [](const void* context, std::int64_t row) {
    SourceRows rows;
    rows.groups = static_cast<const ExtremeGroups*>(context);
    rows.row = row;
    return rows;
  };
  std::vector<float> x(17 * 96);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = i / 96 % 2 == 0 ? 1.0F : (i % 2 == 0 ? 1.0F : -1.0F);
  ThreadPool pool(1);
  std::vector<NamedKernel> kernels = fast_kernels();
  kernels.push_back({"scalar", &group_kernel_scalar()});
  for (const LinearFormat::Kind kind : kinds) {
    AlignedBytes bytes(packed_linear_bytes(Isa::scalar, kind, shape));
    pack_linear_panel(Isa::scalar, kind, shape, 0, source, &groups, bytes.data());
    const PackedLinear weight{shape, kind, Isa::scalar, bytes.data()};
    std::vector<float> w(96);
    unpack_linear_row(weight, 1, w.data());
    const float first = kind == LinearFormat::int8 ? 127.0F : kind == LinearFormat::int4 ? 7.0F : 13.0F;
    EXPECT_EQ(w[0], first);
    for (const NamedKernel& one : kernels) {
      const auto y = multiply(*one.kernel, pool, weight, x.data(), 17, 96);
      for (std::int64_t row = 0; row < 17; ++row) {
        unpack_linear_row(weight, 0, w.data());
        double sum = 0;
        for (std::int64_t k = 0; k < 96; ++k)
          sum += w[static_cast<std::size_t>(k)] * x[static_cast<std::size_t>(row * 96 + k)];
        EXPECT_NEAR(y[static_cast<std::size_t>(row * 32)], sum, 1e-5 * 96 * 128) << one.name << " " << row;
      }
    }
  }
}

}  // namespace
}  // namespace chorus
