// Each operation on a GPU (its emulation, or the card in a build with CUDA) against the same one on a CPU. The bounds
// of the products and the attention themselves: linear_cuda_test.cc, attention_cuda_test.cc; here are the shapes that
// packing fills up.
#include "kernels/ops.h"

#include <gtest/gtest.h>

#include "kernels/cuda_test_device.h"
#include "kernels/linear_test_util.h"

namespace chorus {
namespace {

// Numbers that bfloat16 holds: nothing is rounded on the way into a GPU's product.
std::vector<float> exact_floats(std::int64_t count, std::uint32_t seed) {
  std::vector<float> values = random_floats(count, seed);
  for (float& value : values) value = to_float(to_bfloat16(value));
  return values;
}

class OneDevice {
 public:
  explicit OneDevice(Isa isa) : isa_(isa), device_(make_device(isa, pool_).value()), scope_(device_->scratch()) {}

  Device& operator*() { return *device_; }
  View put(const std::vector<float>& values, std::int64_t rows) {
    View view{nullptr, DType::float32, rows, static_cast<std::int64_t>(values.size()) / rows, 0, device_->kind()};
    view.stride = view.columns;
    view.data = put_bytes(values);
    return view;
  }
  const float* put_vector(const std::vector<float>& values) {
    return reinterpret_cast<const float*>(put_bytes(values));
  }
  PackedLinear pack(const LinearShape& shape, const std::vector<float>& values) {
    const Source source{values.data(), shape.columns};
    std::vector<std::byte> packed(packed_linear_bytes(isa_, DType::bfloat16, shape));
    const std::int64_t rows = packed_shape(isa_, DType::bfloat16, shape).rows;
    for (std::int64_t panel = 0; panel * linear_panel_rows(isa_, DType::bfloat16) < rows; ++panel)
      pack_linear_panel(isa_, DType::bfloat16, shape, panel, &Source::row, &source, packed.data());
    return {shape, DType::bfloat16, isa_, put_bytes(packed)};
  }
  std::vector<float> get(const View& view) {
    std::vector<float> values;
    const auto bytes = static_cast<std::size_t>(view.rows * view.stride) * bytes_of(view.dtype);
    const std::byte* data = device_->read(view.data, bytes);
    for (std::int64_t row = 0; row < view.rows; ++row) {
      for (std::int64_t i = 0; i < view.columns; ++i)
        values.push_back(load_as_float(data, view.dtype, static_cast<std::size_t>(row * view.stride + i)));
    }
    return values;
  }

 private:
  struct Source {
    const float* values;
    std::int64_t columns;
    static SourceRows row(const void* context, std::int64_t row) {
      const auto* source = static_cast<const Source*>(context);
      return {reinterpret_cast<const std::byte*>(source->values + row * source->columns), DType::float32,
              source->columns};
    }
  };
  template <typename T>
  std::byte* put_bytes(const std::vector<T>& values) {
    std::byte* memory = device_->allocate(values.size() * sizeof(T)).value();
    device_->copy_in(memory, reinterpret_cast<const std::byte*>(values.data()), values.size() * sizeof(T));
    return memory;
  }

  Isa isa_;
  ThreadPool pool_{1};
  std::unique_ptr<Device> device_;
  Scratch::Scope scope_;
};

// compute(device) on both; each number of the GPU's within `bound` (absolute) of the CPU's.
template <typename Compute>
void expect_alike(double bound, const Compute& compute) {
  OneDevice cpu(Isa::scalar), gpu(Isa::cuda_sm90);
  const std::vector<float> expected = compute(cpu), got = compute(gpu);
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], bound) << i;
}

TEST(Ops, ProductsWithBiasAndAccumulation) {
  constexpr std::int64_t columns = 40, rows = 19, m = 3;  // rows are filled up to 24
  const double bound = sum_error(columns) * columns + 0x1p-20;
  for (const bool accumulate : {false, true}) {
    expect_alike(bound, [&](OneDevice& device) {
      const PackedLinear weight = device.pack({rows, columns, 1}, exact_floats(rows * columns, 1));
      const View y = take_product(*device, weight, m);
      if (accumulate) fill_zero(*device, {y.data, y.dtype, y.rows, y.stride, y.stride, y.device});
      const float* bias = device.put_vector(random_floats(24, 2));
      linear(*device, weight, product_input(*device, device.put(exact_floats(m * columns, 3), m)), y,
             {bias, accumulate});
      return device.get(y);
    });
  }
}

// |silu(a) b| <= |a| |b| and bfloat16 rounds by 2^-9; the sums of `next` have n terms of at most `largest`.
TEST(Ops, GatedProductsOfWidthsThatAreFilledUp) {
  constexpr std::int64_t hidden = 32, m = 5;
  for (const auto& [width, segments] : {std::pair<std::int64_t, int>{172, 4}, {24, 8}, {64, 8}}) {
    const double largest = hidden * hidden / 4.0;
    const double bound = static_cast<double>(width) * largest * (0x1p-8 + sum_error(hidden) + sum_error(width));
    expect_alike(bound / 8, [&](OneDevice& device) {
      const auto gate_up = device.pack({2 * width, hidden, 1, segments}, exact_floats(2 * width * hidden, 1));
      const auto next = device.pack({hidden, width, segments}, exact_floats(hidden * width, 2));
      const auto x = product_input(*device, device.put(exact_floats(m * hidden, 3), m));
      const View y = take_product(*device, next, m);
      linear(*device, next, gated_input(*device, gate_up, nullptr, x, next), y);
      return device.get(y);
    });
  }
}

TEST(Ops, NormsOfRowsAndHeads) {
  constexpr std::int64_t width = 300, m = 3;
  const std::vector<float> x = random_floats(m * width, 1), weight = random_floats(width, 2),
                           bias = random_floats(width, 3);
  for (const bool is_layer_norm : {false, true}) {
    expect_alike(0x1p-18, [&](OneDevice& device) {  // |out| < 4, sums of 300 in another order
      const View in = device.put(x, m), out = (*device).take(DType::float32, m, width);
      norm(*device, in, {device.put_vector(weight), is_layer_norm, is_layer_norm ? device.put_vector(bias) : nullptr},
           1e-5F, out);
      return device.get(out);
    });
  }
  expect_alike(0x1p-18, [&](OneDevice& device) {
    const View in = device.put(x, m);
    norm_heads(*device, in.columns_from(20, 240), 3, device.put_vector(weight), 1e-5F);
    return device.get(in);
  });
}

// What is no sum has the CPU's bits.
TEST(Ops, RowsAndElementsHaveTheBitsOfTheCpu) {
  constexpr std::int64_t width = 48, m = 4;
  const std::vector<std::int32_t> tokens = {3, 11, 12, 0}, positions = {0, 1, 2, 3}, wanted = {2, 0};
  const std::vector<std::int32_t> table = {0};
  const std::vector<AttentionSequence> sequences = {{0, 0, 4, table}};
  expect_alike(0, [&](OneDevice& device) {
    StepInput step{tokens, positions, sequences, wanted};
    upload(*device, &step, 16);
    const PackedLinear weight = device.pack({9, width, 1}, exact_floats(9 * width, 1));
    const View rows = (*device).take(DType::float32, m, width), two = (*device).take(DType::float32, 2, width);
    look_up(*device, {weight, true, 3}, step, rows);  // rows 3 to 11 of a vocabulary
    scale(*device, 1.5F, rows);
    add_scaled(*device, device.put(random_floats(m * width, 2), m), 0.25F, rows);
    rotary(*device, {rows.columns_from(0, width), 4}, {2, 8, 16, KvDType::bfloat16}, step,
           {8, device.put_vector(random_floats(4 * 8, 3))});
    gather_wanted(*device, rows, step, 0, two);
    auto values = device.get(rows);
    const auto gathered = device.get(two);
    values.insert(values.end(), gathered.begin(), gathered.end());
    return values;
  });
}

}  // namespace
}  // namespace chorus
