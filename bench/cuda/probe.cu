// How tensor cores sum: mma.sync and wgmma against each other, against float32 in ascending k (the emulation's), and
// against fixed-point models of the literature: Fasi, Higham, Mikaitis and Pranesh, "Numerical behavior of NVIDIA
// tensor cores", 2021; Li et al., "FTTN: Feature-targeted testing for numerical properties of GPU matrix accelerators",
// 2024. In these a step's products and the sum so far are cut off below 2^-bits of the largest one's power of two and
// added exactly.
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <string>

#include "gpu_bench.h"
#include "kernels/cuda_launch.h"
#include "kernels/linear_cuda_impl.h"
#include "kernels/wgmma.h"

namespace chorus {
namespace {

constexpr int x_rows = 64, w_rows = 128, columns = 64, outputs = x_rows * w_rows;

// One warpgroup: y = c + x W^T over `steps` steps of 16 columns, by mma.sync and by wgmma. A block a set of matrices.
__global__ void __launch_bounds__(128, 1) multiply_both(const std::uint16_t* x, const std::uint16_t* w, const float* c,
                                                        int steps, float* by_mma, float* by_wgmma) {
  __shared__ __align__(1024) std::uint16_t tile[(x_rows + w_rows) * columns];
  const std::size_t set = blockIdx.x;
  const simt::Shared<std::uint16_t> memory(tile);
  for (int i = simt::thread(); i < (x_rows + w_rows) * columns; i += 128) {
    const int row = i / columns, column = i % columns;
    const std::uint16_t value = row < x_rows ? x[set * x_rows * columns + i] : w[(set * w_rows - x_rows) * columns + i];
    memory[cuda::swizzled<columns>(row, column / 8) + column % 8] = value;
  }
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  wgmma::show_to_copies();
#endif
  __syncthreads();
  const int lane = simt::lane(), row = simt::warp() * 16 + lane / 4;
  float sums[2][16][4];
  for (int i = 0; i < 64; ++i) {
    const int at = (row + i / 2 % 2 * 8) * w_rows + i / 4 * 8 + lane % 4 * 2 + i % 2;
    sums[0][i / 4][i % 4] = sums[1][i / 4][i % 4] = c[set * outputs + at];
  }
  for (int step = 0; step < steps; ++step) {
    std::uint32_t a[4];
    simt::load_matrix_x4(a, memory, cuda::swizzled<columns>(simt::warp() * 16 + lane % 16, 2 * step + lane / 16));
    for (int n = 0; n < 8; ++n) {
      std::uint32_t b[4];
      simt::load_matrix_x4(
          b, memory, cuda::swizzled<columns>(x_rows + 16 * n + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2));
      simt::mma_bf16(sums[0][2 * n], a, b[0], b[1]);
      simt::mma_bf16(sums[0][2 * n + 1], a, b[2], b[3]);
    }
  }
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  wgmma::begin();
  for (int step = 0; step < steps; ++step) {
    wgmma::multiply<128>(sums[1], wgmma::descriptor(tile) + 2 * step,
                         wgmma::descriptor(tile + x_rows * columns) + 2 * step);
  }
  wgmma::commit();
  wgmma::wait_products<0>();
#endif
  for (int i = 0; i < 64; ++i) {
    const int at = (row + i / 2 % 2 * 8) * w_rows + i / 4 * 8 + lane % 4 * 2 + i % 2;
    by_mma[set * outputs + at] = sums[0][i / 4][i % 4];
    by_wgmma[set * outputs + at] = sums[1][i / 4][i % 4];
  }
}

float widened(std::uint16_t value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16);
}

// value as units of 2^exponent, the rest cut off towards zero.
std::int64_t cut(double value, int exponent) {
  return static_cast<std::int64_t>(std::trunc(std::ldexp(value, -exponent)));
}

// One step in blocks of `block` products, each with the sum so far; cut off below 2^-bits, the result towards zero.
float model_step(const std::uint16_t* x, const std::uint16_t* w, float sum, int block, int bits) {
  for (int begin = 0; begin < 16; begin += block) {
    int top = sum == 0 ? -1000 : std::ilogb(sum);
    for (int k = begin; k < begin + block; ++k) {
      const float a = widened(x[k]), b = widened(w[k]);
      if (a != 0 && b != 0) top = std::max(top, std::ilogb(a) + std::ilogb(b));
    }
    if (top == -1000) continue;
    std::int64_t total = cut(sum, top - bits);
    for (int k = begin; k < begin + block; ++k) total += cut(double{widened(x[k])} * double{widened(w[k])}, top - bits);
    const int extra = std::max(0, 64 - __builtin_clzll(static_cast<unsigned long long>(std::abs(total)) | 1) - 24);
    total = total / (std::int64_t{1} << extra) * (std::int64_t{1} << extra);
    sum = static_cast<float>(std::ldexp(static_cast<double>(total), top - bits));
  }
  return sum;
}

struct Samples {
  const char* name;
  bool small_exponents, with_sum, positive;
};

struct SampleSet {
  std::vector<std::uint16_t> x, w;
  std::vector<float> c;

  SampleSet(const Samples& samples, int sets, std::uint32_t seed)
      : x(static_cast<std::size_t>(sets) * x_rows * columns),
        w(static_cast<std::size_t>(sets) * w_rows * columns),
        c(static_cast<std::size_t>(sets) * outputs) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    const auto draw = [&]() -> std::uint16_t {
      const float value = samples.small_exponents
                              ? normal(generator)
                              : std::ldexp(normal(generator), static_cast<int>(generator() % 24) - 12);
      return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(samples.positive ? std::abs(value) : value) >> 16);
    };
    for (std::uint16_t& value : x) value = draw();
    for (std::uint16_t& value : w) value = draw();
    for (float& value : c)
      value = samples.with_sum ? normal(generator) * (samples.small_exponents ? 8.0F : 512.0F) : 0.0F;
  }
};

void write_file(const char* folder, const char* name, const void* data, std::size_t bytes) {
  std::FILE* file = std::fopen((std::string(folder) + "/" + name).c_str(), "wb");
  if (file == nullptr) return;
  std::fwrite(data, 1, bytes, file);
  std::fclose(file);
}

// Of all outputs, how many have other bits than f(row of x, row of W, sum before).
template <typename F>
std::size_t differing(const SampleSet& set, const std::vector<float>& got, int steps, F f) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const std::size_t row = i / w_rows, of_set = i / outputs;
    float sum = set.c[i];
    for (int step = 0; step < steps; ++step) {
      sum = f(&set.x[row * columns + static_cast<std::size_t>(step) * 16],
              &set.w[(of_set * w_rows + i % w_rows) * columns + static_cast<std::size_t>(step) * 16], sum);
    }
    count += std::memcmp(&sum, &got[i], 4) != 0;
  }
  return count;
}

float in_order(const std::uint16_t* x, const std::uint16_t* w, float sum) {
  for (int k = 0; k < 16; ++k) sum += widened(x[k]) * widened(w[k]);
  return sum;
}
float rounded_once(const std::uint16_t* x, const std::uint16_t* w, float sum) {
  double exact = sum;
  for (int k = 0; k < 16; ++k) exact += double{widened(x[k])} * double{widened(w[k])};
  return static_cast<float>(exact);
}

void probe_one(Bench& bench, const Samples& samples, int steps, const char* folder) {
  constexpr int sets = 2;
  const SampleSet set(samples, sets, 7);
  const DeviceArray<std::uint16_t> x(set.x), w(set.w);
  const DeviceArray<float> c(set.c), by_mma(set.c.size()), by_wgmma(set.c.size());
  multiply_both<<<sets, 128, 0, bench.queue.stream>>>(x.data(), w.data(), c.data(), steps, by_mma.data(),
                                                      by_wgmma.data());
  require(cudaStreamSynchronize(bench.queue.stream), "probe");
  const std::vector<float> mma = by_mma.get(), other = by_wgmma.get();
  std::size_t kinds_differ = 0;
  for (std::size_t i = 0; i < mma.size(); ++i) kinds_differ += std::memcmp(&mma[i], &other[i], 4) != 0;
  const double all = static_cast<double>(mma.size()) / 100;
  std::printf("%-24s %d steps, of %zu outputs differ in bits: mma.sync from wgmma %zu (%.2f %%)\n", samples.name, steps,
              mma.size(), kinds_differ, static_cast<double>(kinds_differ) / all);
  std::printf("  mma.sync from float32 in order %.2f %%, from the sum rounded once %.2f %%\n",
              static_cast<double>(differing(set, mma, steps, in_order)) / all,
              static_cast<double>(differing(set, mma, steps, rounded_once)) / all);
  for (const int block : {4, 8, 16}) {
    std::printf("  from the model of blocks of %2d:", block);
    for (int bits = 22; bits <= 27; ++bits) {
      const auto model = [&](const std::uint16_t* a, const std::uint16_t* b, float sum) {
        return model_step(a, b, sum, block, bits);
      };
      std::printf("  %d bits %.2f %%", bits, static_cast<double>(differing(set, mma, steps, model)) / all);
    }
    std::printf("\n");
  }
  if (steps != 1) return;
  const std::string name =
      std::string("probe_") + (samples.small_exponents ? "near" : "far") + (samples.with_sum ? "_sum" : "") + ".bin";
  std::vector<std::byte> bytes(set.x.size() * 2 + set.w.size() * 2 + set.c.size() * 12);
  std::byte* to = bytes.data();
  const auto append = [&to](const void* data, std::size_t count) {
    std::memcpy(to, data, count);
    to += count;
  };
  append(set.x.data(), set.x.size() * 2), append(set.w.data(), set.w.size() * 2),
      append(set.c.data(), set.c.size() * 4);
  append(mma.data(), mma.size() * 4), append(other.data(), other.size() * 4);
  if (samples.with_sum) write_file(folder, name.c_str(), bytes.data(), bytes.size());
}

}  // namespace

void probe_sums(Bench& bench, const char* folder) {
  for (const Samples& samples :
       {Samples{"near, no sum", true, false, false}, Samples{"near, with a sum", true, true, false},
        Samples{"far, with a sum", false, true, false}, Samples{"near, positive", true, false, true}}) {
    probe_one(bench, samples, 1, folder);
    probe_one(bench, samples, 4, folder);
  }
}

}  // namespace chorus
