// simt.h without nvcc: one OS thread runs a block's threads as fibers, one block after another.
//
//   simt::Emulator emulator(seed);
//   emulator.launch(shape, kernel, arguments...);
//
// A fiber runs until it comes to a barrier or to an operation of the whole warp. Which warp goes on then, and in which
// order its lanes do, is drawn from the seed; so is, copy by copy, whether an asynchronous copy lands at once or only
// when its thread waits for it. Code that relies on an order that the hardware does not promise gives wrong numbers
// under some seed: tests run kernels under several. Two seeds are special: 0 lands every copy late, 1 every copy at
// once.
//
// Ends the process (CHECK) with what, which block and which thread: an index outside a Shared, a copy or matrix row
// that is not aligned, lanes of a warp in different operations, a barrier that some threads do not come to, copies that
// nobody waited for. Shared memory begins as NaN. Global memory is plain memory, for AddressSanitizer to watch.
//
// mma_bf16 has the bits of Hopper's tensor cores for finite numbers, as far as they were probed (docs/cuda.md); other
// GPUs cut sums off elsewhere.
//
// An Emulator is used by one thread at a time; kernels find it through a thread-local pointer. x86-64 (System V) only.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "simt/shape.h"

#define SIMT_MEANING emulated
#define SIMT_KERNEL inline void
#define SIMT_KERNEL_OF(threads, blocks_of_a_processor) inline void
#define SIMT_DEVICE inline
#define SIMT_UNROLL
#define SIMT_ROLLED

namespace simt {

class Emulator {
 public:
  explicit Emulator(std::uint64_t seed);
  ~Emulator();
  Emulator(const Emulator&) = delete;
  Emulator& operator=(const Emulator&) = delete;

  template <typename... Parameters, typename... Arguments>
  void launch(const Shape& shape, void (*kernel)(Parameters...), const Arguments&... arguments) {
    run(shape, [&] { kernel(arguments...); });
  }

  // For the functions below.
  enum class Operation : std::uint8_t { none, sync, shuffle, matrix, matrix_transposed, mma };
  struct Lane {  // what a lane brings to an operation of its warp, and what it takes away
    Operation operation = Operation::none;
    const Bfloat16* row = nullptr;
    std::array<std::uint32_t, 6> in = {};
    std::array<float, 4> sums = {};
    std::array<std::uint32_t, 4> out = {};
  };
  int thread() const { return current_; }
  const Shape& shape() const { return shape_; }
  int block_x = 0, block_y = 0, block_z = 0;
  std::byte* shared_memory() const { return shared_; }
  void sync_block();
  // Brings `mine` to the warp's next operation; returns all lanes' after it.
  const std::array<Lane, warp_lanes>& meet(const Lane& mine);
  void copy_async(std::byte* to, const void* from, bool read);
  void commit_copies();
  void wait_copies(int pending);
  void wait_for_previous();
  [[noreturn]] void fault(const char* what, std::int64_t value, std::int64_t limit) const;

 private:
  struct Fiber;
  struct Warp;
  void run(const Shape& shape, const std::function<void()>& body);
  void prepare(const Shape& shape);
  void run_block();
  void start_fibers();
  int choose_warp();
  void run_warp(Warp& warp, int index);
  void finish_operation(Warp& warp, int index);
  void enter(int fiber);
  void give_way(bool last);
  static void entry();
  bool draw_early();
  std::uint64_t draw();

  std::uint64_t seed_, state_;
  Shape shape_;
  const std::function<void()>* body_ = nullptr;
  int current_ = 0;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  std::byte* shared_ = nullptr;
  struct Memory;
  std::unique_ptr<Memory> memory_;
  Emulator* outer_ = nullptr;
};

// The emulator that runs the calling kernel.
extern thread_local Emulator* emulator_of_thread;

inline int thread() {
  return emulator_of_thread->thread();
}
inline int threads() {
  return emulator_of_thread->shape().threads;
}
inline int block_x() {
  return emulator_of_thread->block_x;
}
inline int block_y() {
  return emulator_of_thread->block_y;
}
inline int block_z() {
  return emulator_of_thread->block_z;
}

// A view of shared memory that knows where it ends.
template <typename T>
class Shared {
 public:
  Shared() = default;
  Shared(T* data, int count) : data_(data), count_(count) {}
  T& operator[](int index) const { return *part(index, 1); }
  // Elements [index, index + count).
  T* part(int index, int count) const {
    if (index < 0 || index > count_ - count)
      emulator_of_thread->fault("shared memory index", index + count - 1, count_);
    return data_ + index;
  }

 private:
  T* data_ = nullptr;
  int count_ = 0;
};

template <typename T>
Shared<T> shared(int byte, int count) {
  const std::int64_t end = byte + static_cast<std::int64_t>(sizeof(T)) * count;
  if (byte < 0 || byte % static_cast<int>(alignof(T)) != 0 || end > emulator_of_thread->shape().shared_bytes) {
    emulator_of_thread->fault("end of a part of shared memory", end, emulator_of_thread->shape().shared_bytes);
  }
  return {reinterpret_cast<T*>(emulator_of_thread->shared_memory() + byte), count};
}

inline std::uint32_t bits_of(float value) {
  return std::bit_cast<std::uint32_t>(value);
}
inline float float_of(std::uint32_t bits) {
  return std::bit_cast<float>(bits);
}
inline float multiply_add(float a, float b, float c) {
  return std::fma(a, b, c);
}
inline float quotient(float a, float b) {
  return a / b;
}
inline float magnitude(float value) {
  return std::abs(value);
}
inline float square_root(float value) {
  return std::sqrt(value);
}
inline float minimum(float a, float b) {
  return a < b ? a : b;
}
inline float maximum(float a, float b) {
  return a > b ? a : b;
}
inline float larger(float a, float b) {
  return std::fmax(a, b);
}
inline float zero_below(float limit, float x, float value) {
  return x < limit ? 0.0F : value;
}
std::uint32_t pack_bfloat16(float low, float high);

inline void sync_block() {
  emulator_of_thread->sync_block();
}
inline void sync_warp() {
  emulator_of_thread->meet({Emulator::Operation::sync});
}
float shuffle(float value, int from);
float shuffle_xor(float value, int mask);
bool any_of_warp(bool condition);
void load_matrix_x4(std::uint32_t (&r)[4], Shared<Bfloat16> from, int at);
void load_matrix_transposed_x4(std::uint32_t (&r)[4], Shared<Bfloat16> from, int at);
void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1);

inline void let_next_begin() {}
inline void wait_for_previous() {
  emulator_of_thread->wait_for_previous();
}

template <typename T>
void store16(Shared<T> to, int at, const Bytes16& value) {
  std::memcpy(to.part(at, 16 / static_cast<int>(sizeof(T))), &value, 16);
}
template <typename T>
void copy_async16(Shared<T> to, int at, const void* from, bool read = true) {
  T* const target = to.part(at, 16 / static_cast<int>(sizeof(T)));
  emulator_of_thread->copy_async(reinterpret_cast<std::byte*>(target), from, read);
}
inline void commit_copies() {
  emulator_of_thread->commit_copies();
}
template <int pending>
void wait_copies() {
  emulator_of_thread->wait_copies(pending);
}

}  // namespace simt
