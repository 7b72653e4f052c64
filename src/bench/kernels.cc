#include "bench/kernels.h"

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "bench/statistics.h"
#include "config/node.h"
#include "config/reduction_segments.h"
#include "kernels/limits.h"
#include "kernels/linear.h"
#include "tensor/scratch.h"

namespace chorus {
namespace {

// A decode step of 1, 8 and 32 sequences, and a prefill of 512 tokens.
constexpr std::int64_t row_counts[] = {1, 8, 32, 512};

struct Machine {
  double peak_per_s = 0, bandwidth_per_s = 0;  // operations, bytes
};

// A product of the model: W x, or both of the feed-forward layer with the activation between.
struct Product {
  const char* name;
  std::vector<LinearShape> shapes;
};

std::vector<Product> products_of(const ModelConfig& model) {
  const std::int64_t hidden = model.hidden_size, heads = model.num_attention_heads, head_dim = model.head_dim;
  const int width = model.num_experts > 0 ? model.moe_intermediate_size : model.intermediate_size;
  return {{"qkv", {{(heads + std::int64_t{2} * model.num_key_value_heads) * head_dim, hidden, 1}}},
          {"o", {{hidden, heads * head_dim, reduction_segments(model.num_attention_heads)}}},
          {"feed-forward", {{2 * std::int64_t{width}, hidden, 1}, {hidden, width, reduction_segments(width)}}},
          {"output", {{model.vocab_size, hidden, 1}}}};
}

// Packed weights that no cache holds, as a model's are: as many copies as make this many bytes, in turn.
class Weights {
 public:
  Weights(ThreadPool& pool, Isa isa, DType dtype, const std::vector<LinearShape>& shapes) {
    constexpr std::size_t bytes_min = std::size_t{512} << 20;
    for (const LinearShape& shape : shapes) bytes_ += packed_linear_bytes(isa, dtype, shape);
    const std::size_t copies = 1 + bytes_min / bytes_;
    const Scratch::Scope scope(memory_);
    std::byte* data = memory_.take(bytes_ * copies);
    const auto halves = static_cast<std::int64_t>(bytes_ * copies / 2);
    // 0x3c00 is a small number in bfloat16, and twice in float32.
    pool.for_range(halves, [&](std::int64_t begin, std::int64_t end) {
      auto* words = reinterpret_cast<std::uint16_t*>(data);
      std::fill(words + begin, words + end, std::uint16_t{0x3c00});
    });
    for (std::size_t copy = 0; copy < copies; ++copy) {
      copies_.emplace_back();
      for (const LinearShape& shape : shapes) {
        copies_.back().push_back({shape, dtype, isa, data});
        data += packed_linear_bytes(isa, dtype, shape);
      }
    }
  }
  std::size_t bytes() const { return bytes_; }  // of one copy
  const std::vector<PackedLinear>& next() { return copies_[at_++ % copies_.size()]; }

 private:
  Scratch memory_;
  std::size_t bytes_ = 0, at_ = 0;
  std::vector<std::vector<PackedLinear>> copies_;
};

// Seconds of one call: the median of `iterations` measurements of as many calls as make a tenth of a second.
double seconds_of(int iterations, const std::function<void()>& call) {
  call();  // grows the scratch memory
  std::vector<double> seconds;
  for (int i = 0; i < iterations; ++i) {
    const Nanoseconds start = monotonic_now();
    std::int64_t calls = 0;
    for (; calls == 0 || monotonic_now() - start < 100'000'000; ++calls) call();
    seconds.push_back(static_cast<double>(monotonic_now() - start) * 1e-9 / static_cast<double>(calls));
  }
  return median(seconds);
}

Json measure(const KernelOptions& options, ThreadPool& pool, const Machine& machine, const Product& product,
             Weights& weights, std::int64_t m) {
  const std::int64_t columns = product.shapes.front().columns, rows = product.shapes.back().rows;
  std::vector<float> x(static_cast<std::size_t>(m * columns), 0.5F), y(static_cast<std::size_t>(m * rows));
  Scratch scratch;
  const double seconds = seconds_of(options.num_iters, [&] {
    const std::vector<PackedLinear>& matrices = weights.next();
    const Scratch::Scope scope(scratch);
    LinearInput input{x.data(), m, columns};
    if (matrices.size() == 2) input = gated_input(pool, scratch, matrices[0], nullptr, input, matrices[1]);
    linear(pool, scratch, matrices.back(), input, y.data(), rows);
  });
  double operations = 0;
  for (const LinearShape& shape : product.shapes)
    operations += 2.0 * static_cast<double>(m * shape.rows * shape.columns);
  const double possible =
      std::max(operations / machine.peak_per_s, static_cast<double>(weights.bytes()) / machine.bandwidth_per_s);
  return {{"name", product.name},
          {"rows", m},
          {"seconds", seconds},
          {"gflops", operations / seconds * 1e-9},
          {"gbytes_per_s", static_cast<double>(weights.bytes()) / seconds * 1e-9},
          {"possible_seconds", possible},
          {"limit", operations / machine.peak_per_s == possible ? "multiply-add" : "bandwidth"},
          {"ratio", possible / seconds}};
}

std::string table_of(const Json& result) {
  std::string table =
      fmt::format("{}, {} threads: {:.0f} GFLOP/s of multiply-adds in registers, {:.1f} GB/s read from memory\n",
                  result["profile"].get<std::string>(), result["threads"].get<int>(),
                  result["peak_gflops"].get<double>(), result["bandwidth_gbytes_per_s"].get<double>());
  table += fmt::format("{:<14} {:>5} {:>12} {:>10} {:>8}  {}\n", "product", "rows", "us", "GFLOP/s", "GB/s",
                       "of what is possible");
  for (const Json& row : result["products"]) {
    table += fmt::format("{:<14} {:>5} {:>12.1f} {:>10.1f} {:>8.2f}  {:>3.0f} % ({})\n", row["name"].get<std::string>(),
                         row["rows"].get<int>(), row["seconds"].get<double>() * 1e6, row["gflops"].get<double>(),
                         row["gbytes_per_s"].get<double>(), row["ratio"].get<double>() * 100,
                         row["limit"].get<std::string>());
  }
  return table;
}

}  // namespace

Result<BenchResult> measure_kernels(const KernelOptions& options, const ModelConfig& model, const BenchHooks& hooks) {
  CHORUS_TRY_VOID(check_at_least("--num-iters", options.num_iters, 1));
  CHORUS_TRY(const Isa isa, choose_isa(options.engine.cpu_isa));
  const DType dtype = compute_dtype(options.engine, model);
  ThreadPool pool(threads_per_worker(options.engine, detect_node()));
  const Machine machine{multiply_add_peak_per_s(pool, isa, dtype), read_bandwidth_bytes_per_s(pool)};
  Json result = {{"profile", fmt::format("{}/{}", name_of(isa), name_of(dtype))},
                 {"threads", pool.size()},
                 {"peak_gflops", machine.peak_per_s * 1e-9},
                 {"bandwidth_gbytes_per_s", machine.bandwidth_per_s * 1e-9},
                 {"products", Json::array()}};
  for (const Product& product : products_of(model)) {
    Weights weights(pool, isa, dtype, product.shapes);
    for (const std::int64_t m : row_counts) {
      if (hooks.interrupted && hooks.interrupted()) return fail(ErrorCode::cancelled, "interrupted");
      result["products"].push_back(measure(options, pool, machine, product, weights, m));
    }
  }
  std::string table = table_of(result);
  return BenchResult{std::move(result), std::move(table), 0, ""};
}

}  // namespace chorus
