#include <algorithm>
#include <cmath>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

#include "weights/checkpoint.h"
#include "weights/made_tensors.h"

namespace chorus {
namespace {

// The finaliser of SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014,
// figure 15 with the constants of Stafford's variant 13. One call gives four elements of 16 bits each.
constexpr std::uint64_t mix(std::uint64_t value) {
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9U;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBU;
  return value ^ (value >> 31);
}

// FNV-1a of the name, mixed with the seed.
std::uint64_t key_of(std::uint64_t seed, const std::string& name) {
  std::uint64_t hash = 0xCBF29CE484222325U;
  for (const char letter : name) hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001B3U;
  return mix(hash + mix(seed + 0x9E3779B97F4A7C15U));
}

// 65536 values spread evenly over +-sqrt(3) * 0.02: standard deviation 0.02, mean 0.
inline float value_of(std::uint16_t bits) {
  constexpr float step = 2.0F * 1.7320508F * 0.02F / 65536.0F;
  return (static_cast<float>(bits) - 32767.5F) * step;
}

// Round to nearest even for |value| < 1, which is all that is needed here: adding and taking away 2^13 times the
// value's binade (at least that of the smallest normal) rounds to the 10 mantissa bits, after which the conversion is
// exact.
std::uint16_t to_float16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000U);
  const float magnitude = std::bit_cast<float>(bits & 0x7FFFFFFFU);
  const float binade = std::fmax(std::bit_cast<float>(bits & 0x7F800000U), 0x1.0p-14F);
  const float rounded = (magnitude + binade * 0x1.0p13F) - binade * 0x1.0p13F;
  if (rounded < 0x1.0p-14F) return static_cast<std::uint16_t>(sign | static_cast<std::uint16_t>(rounded * 0x1.0p24F));
  return static_cast<std::uint16_t>(sign | ((std::bit_cast<std::uint32_t>(rounded) >> 13) - (112U << 10)));
}

inline void store(float value, DType dtype, std::byte* out) {
  if (dtype == DType::float32) {
    std::memcpy(out, &value, 4);
    return;
  }
  const std::uint16_t bits = dtype == DType::bfloat16 ? to_bfloat16(value) : to_float16(value);
  std::memcpy(out, &bits, 2);
}

// 16 bits for each of the elements [4 * group, 4 * group + 4 * groups).
inline void draw(std::uint64_t key, std::uint64_t group, std::size_t groups, std::uint16_t* bits) {
  for (std::size_t i = 0; i < groups; ++i) {
    const std::uint64_t word = mix(key + (group + i) * 0x9E3779B97F4A7C15U);
    for (unsigned lane = 0; lane < 4; ++lane) bits[4 * i + lane] = static_cast<std::uint16_t>(word >> (16 * lane));
  }
}

// Draws a block at a time and converts it in a separate loop, which the compiler turns into vector instructions.
template <DType dtype>
void fill_uniform(std::uint64_t key, std::uint64_t first, std::uint64_t count, std::byte* out) {
  constexpr std::size_t group_rows = 256;
  std::uint16_t bits[4 * group_rows];
  const std::uint64_t end = first + count;
  for (std::uint64_t index = first; index < end;) {
    const std::uint64_t group = index / 4;
    const auto groups = static_cast<std::size_t>(std::min<std::uint64_t>(group_rows, (end + 3) / 4 - group));
    draw(key, group, groups, bits);
    const std::uint16_t* from = bits + index % 4;
    const auto elements = static_cast<std::size_t>(std::min<std::uint64_t>(end, 4 * (group + groups)) - index);
    for (std::size_t i = 0; i < elements; ++i) store(value_of(from[i]), dtype, out + i * bytes_of(dtype));
    out += elements * bytes_of(dtype);
    index += elements;
  }
}

class DummyCheckpoint final : public Checkpoint {
 public:
  DummyCheckpoint(std::uint64_t seed, DType dtype) : seed_(seed), dtype_(dtype) {}
  bool has(const std::string& /*name*/) const override { return true; }
  Result<TensorView> tensor(const std::string& name, const std::vector<std::int64_t>& shape) const override;
  std::vector<std::string> names() const override { return {}; }
  std::size_t files() const override { return 0; }
  std::string digest() const override { return fmt::format("dummy weights of seed {}", seed_); }
  void release(const std::string& name) const override { made_.release(name); }

 private:
  std::uint64_t seed_;
  DType dtype_;
  mutable MadeTensors made_;
};

// By all processors: a page that is new to the process costs more than its numbers.
void fill_in_parts(std::uint64_t seed, const std::string& name, DType dtype, std::uint64_t count, std::byte* out) {
  constexpr std::uint64_t part_min = std::uint64_t{1} << 20;  // elements
  const std::uint64_t processors = std::max(1U, std::thread::hardware_concurrency());
  const std::uint64_t part = std::max(part_min, (count + processors - 1) / processors);
  std::vector<std::jthread> threads;
  for (std::uint64_t first = part; first < count; first += part) {
    const std::uint64_t length = std::min(part, count - first);
    const auto fill_part = [=, &name] { fill_dummy(seed, name, dtype, first, length, out + first * bytes_of(dtype)); };
    try {
      threads.emplace_back(fill_part);
    } catch (const std::system_error&) {  // no more threads are allowed
      fill_part();
    }
  }
  fill_dummy(seed, name, dtype, 0, std::min(part, count), out);
}

void fill(std::uint64_t seed, const std::string& name, DType dtype, std::size_t rank, std::uint64_t count,
          std::byte* out) {
  const bool norm = rank == 1 && name.find("norm") != std::string::npos && name.find("weight") != std::string::npos;
  if (rank == 1 && name.ends_with("bias")) return;  // a fresh block is zero
  if (!norm) return fill_in_parts(seed, name, dtype, count, out);
  for (std::uint64_t index = 0; index < count; ++index) {
    if (dtype == DType::float16) {
      constexpr std::uint16_t one = 0x3C00;
      std::memcpy(out + index * 2, &one, 2);
    } else {
      store(1.0F, dtype, out + index * bytes_of(dtype));
    }
  }
}

Result<TensorView> DummyCheckpoint::tensor(const std::string& name, const std::vector<std::int64_t>& shape) const {
  CHORUS_TRY(const std::byte* const bytes, made_.get(name, shape, bytes_of(dtype_), [&](std::byte* out) {
    std::uint64_t count = 1;
    for (const std::int64_t dimension : shape) count *= static_cast<std::uint64_t>(dimension);
    fill(seed_, name, dtype_, shape.size(), count, out);
  }));
  return TensorView{bytes, dtype_, shape, "dummy weights"};
}

}  // namespace

void fill_dummy(std::uint64_t seed, const std::string& name, DType dtype, std::uint64_t first, std::uint64_t count,
                std::byte* out) {
  const std::uint64_t key = key_of(seed, name);
  switch (dtype) {
    case DType::float32:
      return fill_uniform<DType::float32>(key, first, count, out);
    case DType::bfloat16:
      return fill_uniform<DType::bfloat16>(key, first, count, out);
    case DType::float16:
      return fill_uniform<DType::float16>(key, first, count, out);
  }
}

std::unique_ptr<Checkpoint> make_dummy_checkpoint(std::uint64_t seed, DType dtype) {
  return std::make_unique<DummyCheckpoint>(seed, dtype);
}

}  // namespace chorus
