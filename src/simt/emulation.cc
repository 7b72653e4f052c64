#include "simt/simt.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "simt/fiber.h"

namespace simt {

thread_local Emulator* emulator_of_thread = nullptr;

struct Emulator::Fiber {
  enum class State : std::uint8_t { runs, at_warp, at_block, ended };
  struct Copy {
    std::byte* to;
    const void* from;
    bool read;
    bool landed;
    int group;
  };
  FiberContext context;
  State state = State::runs;
  int groups = 0;       // of copies, closed so far
  bool waited = false;  // for the kernel before
  std::vector<Copy> copies;

  static void land(const Copy& copy) {
    if (copy.read) {
      std::memcpy(copy.to, copy.from, 16);
    } else {
      std::memset(copy.to, 0, 16);
    }
  }
};

struct Emulator::Warp {
  // Two sets of lanes in turn: a lane can bring its part of the next operation while others read the last one.
  std::array<std::array<Lane, warp_lanes>, 2> lanes;
  std::array<std::uint8_t, warp_lanes> turn = {};
  std::uint8_t finishing = 0;
};

struct Emulator::Memory {
  std::unique_ptr<FiberStacks> stacks;
  FiberContext main;
  std::vector<std::byte> shared;
};

Emulator::Emulator(std::uint64_t seed) : seed_(seed), state_(seed), memory_(std::make_unique<Memory>()) {}
Emulator::~Emulator() = default;

// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
std::uint64_t Emulator::draw() {
  std::uint64_t z = state_ += 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

bool Emulator::draw_early() {
  return seed_ < 2 ? seed_ == 1 : draw() % 2 == 0;
}

void Emulator::fault(const char* what, std::int64_t value, std::int64_t limit) const {
  CHECK(false, "emulated kernel, block ({}, {}, {}), thread {}: {} {}, limit {}", block_x, block_y, block_z, current_,
        what, value, limit);
  __builtin_unreachable();
}

void Emulator::prepare(const Shape& shape) {
  CHECK(shape.threads > 0 && shape.threads % warp_lanes == 0 && shape.threads <= 1024, "{} threads a block",
        shape.threads);
  shape_ = shape;
  const auto count = static_cast<std::size_t>(shape.threads);
  if (memory_->stacks == nullptr || memory_->stacks->count() < count) {
    memory_->stacks = std::make_unique<FiberStacks>(count);
  }
  if (fibers_.size() != count) fibers_ = std::vector<Fiber>(count);
  memory_->shared.resize(static_cast<std::size_t>(shape.shared_bytes) + 128);
  const auto address = reinterpret_cast<std::uintptr_t>(memory_->shared.data());
  shared_ = memory_->shared.data() + (128 - address % 128) % 128;
}

void Emulator::run(const Shape& shape, const std::function<void()>& body) {
  prepare(shape);
  body_ = &body;
  outer_ = std::exchange(emulator_of_thread, this);
  for (block_z = 0; block_z < shape.z; ++block_z) {
    for (block_y = 0; block_y < shape.y; ++block_y) {
      for (block_x = 0; block_x < shape.x; ++block_x) run_block();
    }
  }
  emulator_of_thread = outer_;
}

void Emulator::start_fibers() {
  warps_ = std::vector<Warp>(fibers_.size() / warp_lanes);
  for (std::size_t i = 0; i < fibers_.size(); ++i) {
    fibers_[i].state = Fiber::State::runs;
    fibers_[i].groups = 0;
    fibers_[i].waited = false;
    fibers_[i].copies.clear();
    fibers_[i].context.start(*memory_->stacks, i, &Emulator::entry);
  }
}

void Emulator::run_block() {
  std::memset(shared_, 0xff, static_cast<std::size_t>(shape_.shared_bytes));
  start_fibers();
  const auto is = [](Fiber::State state) { return [state](const Fiber& fiber) { return fiber.state == state; }; };
  for (;;) {
    const int chosen = choose_warp();
    if (chosen >= 0) {
      run_warp(warps_[static_cast<std::size_t>(chosen)], chosen);
    } else if (std::ranges::all_of(fibers_, is(Fiber::State::ended))) {
      break;
    } else {
      const auto waiting = std::ranges::count_if(fibers_, is(Fiber::State::at_block));
      if (waiting != shape_.threads) fault("threads at a barrier of the block", waiting, shape_.threads);
      for (Fiber& fiber : fibers_) fiber.state = Fiber::State::runs;
    }
  }
  for (const Fiber& fiber : fibers_) {
    if (!fiber.copies.empty())
      fault("copies that nobody waited for", static_cast<std::int64_t>(fiber.copies.size()), 0);
  }
  const auto waited = std::ranges::count_if(fibers_, &Fiber::waited);
  if (shape_.overlaps && waited != shape_.threads)
    fault("threads that waited for the kernel before", waited, shape_.threads);
}

// A warp with a lane that runs, from a drawn place on; -1: none.
int Emulator::choose_warp() {
  const int count = static_cast<int>(warps_.size());
  const int first = static_cast<int>(draw() % static_cast<std::uint64_t>(count));
  for (int i = 0; i < count; ++i) {
    const int warp = (first + i) % count;
    const auto begin = fibers_.begin() + std::ptrdiff_t{warp} * warp_lanes;
    if (std::any_of(begin, begin + warp_lanes, [](const Fiber& f) { return f.state == Fiber::State::runs; }))
      return warp;
  }
  return -1;
}

void Emulator::run_warp(Warp& warp, int index) {
  const bool descending = draw() % 2 == 0;
  for (int i = 0; i < warp_lanes; ++i) {
    const int fiber = index * warp_lanes + (descending ? warp_lanes - 1 - i : i);
    if (fibers_[static_cast<std::size_t>(fiber)].state == Fiber::State::runs) enter(fiber);
  }
  const auto begin = fibers_.begin() + std::ptrdiff_t{index} * warp_lanes;
  const auto arrived =
      std::count_if(begin, begin + warp_lanes, [](const Fiber& f) { return f.state == Fiber::State::at_warp; });
  if (arrived == 0) return;
  if (arrived != warp_lanes) fault("lanes of a warp at an operation", arrived, warp_lanes);
  finish_operation(warp, index);
  std::for_each(begin, begin + warp_lanes, [](Fiber& f) { f.state = Fiber::State::runs; });
}

namespace {

using Lanes = std::array<Emulator::Lane, warp_lanes>;

// A finite bfloat16 as significand * 2^(power - 7), sign in the significand.
struct Scaled {
  std::int32_t significand, power;

  explicit Scaled(std::uint32_t bits) {
    const std::int32_t exponent = static_cast<std::int32_t>(bits >> 7 & 0xffU),
                       mantissa = static_cast<std::int32_t>(bits & 0x7fU);
    significand = exponent == 0 ? mantissa : mantissa | 0x80;
    power = std::max(exponent, 1) - 127;
    if ((bits & 0x8000U) != 0) significand = -significand;
  }
  Scaled() : significand(0), power(0) {}
};

// value * 2^shift, cut off towards zero.
std::int64_t scaled_by(std::int64_t value, int shift) {
  if (shift >= 0) return value << shift;
  if (shift < -62) return 0;
  return value < 0 ? -(-value >> -shift) : value >> -shift;
}

// A step of Hopper's tensor cores (docs/cuda.md): 16 exact products and the sum so far, all cut off towards zero below
// 2^-25 of the largest one's power of two, added exactly; the result cut off to a float.
constexpr int kept_bits = 25;
float add_products(float sum, const std::array<Scaled, 16>& a, const std::array<Scaled, 16>& b) {
  constexpr int none = -1000;
  int top = sum == 0 ? none : std::ilogb(sum);
  for (std::size_t k = 0; k < 16; ++k) {
    if (a[k].significand != 0 && b[k].significand != 0) top = std::max(top, a[k].power + b[k].power);
  }
  if (top == none) return sum;
  int power = 0;
  const auto significand = static_cast<std::int64_t>(std::ldexp(std::frexp(sum, &power), 24));
  std::int64_t total = scaled_by(significand, power - 24 - top + kept_bits);
  for (std::size_t k = 0; k < 16; ++k) {
    const std::int64_t product = std::int64_t{a[k].significand} * b[k].significand;
    total += scaled_by(product, a[k].power + b[k].power - 14 - top + kept_bits);
  }
  const auto magnitude = static_cast<std::uint64_t>(std::abs(total));
  const int extra = std::max(0, static_cast<int>(std::bit_width(magnitude)) - 24);
  const auto cut = static_cast<float>(magnitude >> extra);
  return std::ldexp(total < 0 ? -cut : cut, extra + top - kept_bits);
}

bool finite(std::uint32_t bits) {
  return (bits & 0x7f80U) != 0x7f80U;
}

// Fragments as in the PTX ISA: lane 4 g + t. a: rows g and g + 8, columns 2 t, 2 t + 1 and those + 8; b: row g of W.
void multiply_matrices(Lanes& lanes) {
  std::array<std::array<std::uint32_t, 16>, 16> a;  // bits, [row][k]
  std::array<std::array<std::uint32_t, 16>, 8> b;   // [column][k]
  for (std::size_t lane = 0; lane < warp_lanes; ++lane) {
    const std::size_t g = lane / 4, t = lane % 4 * 2;
    const auto& in = lanes[lane].in;
    for (std::size_t i = 0; i < 4; ++i) {
      const std::size_t row = g + i % 2 * 8, k = t + i / 2 * 8;
      a[row][k] = in[i] & 0xffffU, a[row][k + 1] = in[i] >> 16;
    }
    for (std::size_t i = 0; i < 2; ++i) b[g][t + i * 8] = in[4 + i] & 0xffffU, b[g][t + i * 8 + 1] = in[4 + i] >> 16;
  }
  std::array<std::array<Scaled, 16>, 16> scaled_a;
  std::array<std::array<Scaled, 16>, 8> scaled_b;
  bool all_finite = true;
  const auto scale = [&](const auto& from, auto& to) {
    for (std::size_t i = 0; i < from.size(); ++i) {
      for (std::size_t k = 0; k < 16; ++k) {
        to[i][k] = Scaled(from[i][k]);
        all_finite = all_finite && finite(from[i][k]);
      }
    }
  };
  scale(a, scaled_a);
  scale(b, scaled_b);
  for (std::size_t lane = 0; lane < warp_lanes; ++lane) {
    for (std::size_t i = 0; i < 4; ++i) {
      const std::size_t row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      float& sum = lanes[lane].sums[i];
      if (all_finite && std::isfinite(sum)) {
        sum = add_products(sum, scaled_a[row], scaled_b[column]);
      } else {
        for (std::size_t k = 0; k < 16; ++k) sum += float_of(a[row][k] << 16) * float_of(b[column][k] << 16);
      }
    }
  }
}

// Lane 4 g + t takes elements 2 t and 2 t + 1 of row g of each matrix; transposed: of column g.
void load_matrices(Lanes& lanes, bool transposed) {
  for (std::size_t lane = 0; lane < warp_lanes; ++lane) {
    const std::size_t g = lane / 4, t = lane % 4 * 2;
    for (std::size_t m = 0; m < 4; ++m) {
      const Bfloat16 low = transposed ? lanes[8 * m + t].row[g] : lanes[8 * m + g].row[t];
      const Bfloat16 high = transposed ? lanes[8 * m + t + 1].row[g] : lanes[8 * m + g].row[t + 1];
      lanes[lane].out[m] = low | static_cast<std::uint32_t>(high) << 16;
    }
  }
}

}  // namespace

void Emulator::finish_operation(Warp& warp, int index) {
  Lanes& lanes = warp.lanes[warp.finishing];
  warp.finishing ^= 1;
  const Operation operation = lanes[0].operation;
  for (int lane = 0; lane < warp_lanes; ++lane) {
    current_ = index * warp_lanes + lane;
    const auto other = lanes[static_cast<std::size_t>(lane)].operation;
    if (other != operation)
      fault("operation beside another one of its warp", int{static_cast<std::uint8_t>(other)},
            int{static_cast<std::uint8_t>(operation)});
  }
  if (operation == Operation::mma) multiply_matrices(lanes);
  if (operation == Operation::matrix) load_matrices(lanes, false);
  if (operation == Operation::matrix_transposed) load_matrices(lanes, true);
}

void Emulator::enter(int fiber) {
  current_ = fiber;
  memory_->main.switch_to(fibers_[static_cast<std::size_t>(fiber)].context, false);
}

void Emulator::give_way(bool last) {
  fibers_[static_cast<std::size_t>(current_)].context.switch_to(memory_->main, last);
}

void Emulator::entry() {
  Emulator& self = *emulator_of_thread;
  (*self.body_)();
  self.fibers_[static_cast<std::size_t>(self.current_)].state = Fiber::State::ended;
  self.give_way(true);
}

void Emulator::wait_for_previous() {
  fibers_[static_cast<std::size_t>(current_)].waited = true;
}

void Emulator::sync_block() {
  fibers_[static_cast<std::size_t>(current_)].state = Fiber::State::at_block;
  give_way(false);
}

const Lanes& Emulator::meet(const Lane& mine) {
  Warp& warp = warps_[static_cast<std::size_t>(current_ / warp_lanes)];
  const auto lane = static_cast<std::size_t>(current_ % warp_lanes);
  Lanes& lanes = warp.lanes[warp.turn[lane]];
  warp.turn[lane] ^= 1;
  lanes[lane] = mine;
  fibers_[static_cast<std::size_t>(current_)].state = Fiber::State::at_warp;
  give_way(false);
  return lanes;
}

void Emulator::copy_async(std::byte* to, const void* from, bool read) {
  const auto misaligned = static_cast<std::int64_t>(
      (reinterpret_cast<std::uintptr_t>(to) | (read ? reinterpret_cast<std::uintptr_t>(from) : 0)) % 16);
  if (misaligned != 0) fault("bytes beside an aligned address in a copy of 16", misaligned, 0);
  Fiber& fiber = fibers_[static_cast<std::size_t>(current_)];
  const Fiber::Copy copy{to, from, read, draw_early(), fiber.groups};
  if (copy.landed) Fiber::land(copy);
  fiber.copies.push_back(copy);
}

void Emulator::commit_copies() {
  ++fibers_[static_cast<std::size_t>(current_)].groups;
}

void Emulator::wait_copies(int pending) {
  Fiber& fiber = fibers_[static_cast<std::size_t>(current_)];
  const int landed = fiber.groups - pending;
  for (const Fiber::Copy& copy : fiber.copies) {
    if (copy.group < landed && !copy.landed) Fiber::land(copy);
  }
  std::erase_if(fiber.copies, [landed](const Fiber::Copy& copy) { return copy.group < landed; });
}

namespace {

std::uint32_t round_to_bfloat16(float value) {
  const std::uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return 0x7fffU;  // as cvt.rn gives it
  return (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
}

void load_matrix(std::uint32_t (&r)[4], Shared<Bfloat16> from, int at, Emulator::Operation operation) {
  const Bfloat16* row = from.part(at, 8);
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0)
    emulator_of_thread->fault("index of a matrix row that is not aligned", at, 0);
  Emulator::Lane mine{operation};
  mine.row = row;
  const int lane = emulator_of_thread->thread() % warp_lanes;
  const auto& out = emulator_of_thread->meet(mine)[static_cast<std::size_t>(lane)].out;
  std::copy(out.begin(), out.end(), r);
}

float value_of_lane(float value, int from, bool from_xor) {
  Emulator::Lane mine{Emulator::Operation::shuffle};
  mine.in[0] = bits_of(value);
  const int source = from_xor ? emulator_of_thread->thread() % warp_lanes ^ from : from;
  if (source < 0 || source >= warp_lanes) emulator_of_thread->fault("lane of a shuffle", source, warp_lanes);
  return float_of(emulator_of_thread->meet(mine)[static_cast<std::size_t>(source)].in[0]);
}

}  // namespace

std::uint32_t pack_bfloat16(float low, float high) {
  return round_to_bfloat16(low) | round_to_bfloat16(high) << 16;
}

float shuffle(float value, int from) {
  return value_of_lane(value, from, false);
}
float shuffle_xor(float value, int mask) {
  return value_of_lane(value, mask, true);
}
bool any_of_warp(bool condition) {
  Emulator::Lane mine{Emulator::Operation::shuffle};
  mine.in[0] = condition ? 1 : 0;
  return std::ranges::any_of(emulator_of_thread->meet(mine),
                             [](const Emulator::Lane& lane) { return lane.in[0] != 0; });
}

void load_matrix_x4(std::uint32_t (&r)[4], Shared<Bfloat16> from, int at) {
  load_matrix(r, from, at, Emulator::Operation::matrix);
}
void load_matrix_transposed_x4(std::uint32_t (&r)[4], Shared<Bfloat16> from, int at) {
  load_matrix(r, from, at, Emulator::Operation::matrix_transposed);
}

void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  Emulator::Lane mine{Emulator::Operation::mma};
  mine.in = {a[0], a[1], a[2], a[3], b0, b1};
  std::copy_n(d, 4, mine.sums.begin());
  const int lane = emulator_of_thread->thread() % warp_lanes;
  const auto& sums = emulator_of_thread->meet(mine)[static_cast<std::size_t>(lane)].sums;
  std::copy(sums.begin(), sums.end(), d);
}

}  // namespace simt
