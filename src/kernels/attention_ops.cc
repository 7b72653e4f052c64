// The operations of ops.h that read the KV memory, and the upload of what they read.
#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/attention_cuda.h"
#include "kernels/cpu_device.h"
#include "kernels/cuda_device.h"
#include "kernels/elementwise.h"
#include "kernels/elementwise_cuda.h"
#include "kernels/ops.h"

namespace chorus {
namespace {

bool on_gpu(const Device& device) {
  return device.kind() == DeviceKind::cuda;
}

// Parts of the memory that a step's input is sent in, one after another.
class Packing {
 public:
  explicit Packing(CudaDevice::Stage stage) : stage_(stage) {}

  // Room for `count` elements: written to `host`, read at the returned place of the device.
  template <typename T>
  const T* take(std::size_t count, T** host) {
    bytes_ = (bytes_ + alignment - 1) / alignment * alignment;
    *host = reinterpret_cast<T*>(stage_.host + bytes_);
    const auto* device = reinterpret_cast<const T*>(stage_.device + bytes_);
    bytes_ += count * sizeof(T);
    return device;
  }
  const std::int32_t* take_copy(std::span<const std::int32_t> values) {
    std::int32_t* host = nullptr;
    const std::int32_t* device = take(values.size(), &host);
    std::ranges::copy(values, host);
    return device;
  }
  std::size_t bytes() const { return bytes_; }

  static constexpr std::size_t alignment = 16;

 private:
  CudaDevice::Stage stage_;
  std::size_t bytes_ = 0;
};

std::size_t table_entries(const StepInput& step) {
  std::size_t entries = 0;
  for (const AttentionSequence& sequence : step.sequences) entries += sequence.block_table.size();
  return entries;
}

// Of what differs from one block table to another.
std::size_t table_bytes(const StepInput& step) {
  return table_entries(step) * sizeof(std::int32_t) + step.tokens.size() * sizeof(std::int64_t) +
         step.sequences.size() * sizeof(CudaSequence) + 3 * Packing::alignment;
}

std::size_t packed_bytes(const StepInput& step) {
  std::size_t bytes =
      (2 * step.tokens.size() + step.wanted.size()) * sizeof(std::int32_t) + 3 * Packing::alignment + table_bytes(step);
  for (const StepInput& other : step.other_tables) bytes += table_bytes(other);
  return bytes;
}

// Where each row's keys and values go.
void fill_slots(const StepInput& step, int block_size, std::int64_t* slots) {
  for (const AttentionSequence& sequence : step.sequences) {
    for (std::int32_t i = 0; i < sequence.count; ++i) {
      const std::int32_t position = sequence.start + i;
      slots[sequence.row + i] =
          std::int64_t{sequence.block_table[static_cast<std::size_t>(position / block_size)]} * block_size +
          position % block_size;
    }
  }
}

// Sequences of one row first. Their tables lie one after another: `table` is a table's first entry.
void fill_sequences(const StepInput& step, CudaSequence* sequences, std::int32_t* tables, CudaStepInput* on_gpu) {
  std::int32_t entry = 0;
  for (const bool single : {true, false}) {
    std::int32_t& count = single ? on_gpu->single_rows : on_gpu->several_rows;
    std::int32_t& positions = single ? on_gpu->single_positions_max : on_gpu->several_positions_max;
    for (const AttentionSequence& sequence : step.sequences) {
      if ((sequence.count == 1) != single) continue;
      const std::int32_t end = sequence.start + sequence.count;
      *sequences++ = {static_cast<std::int32_t>(sequence.row), sequence.start, sequence.count, entry};
      std::ranges::copy(sequence.block_table, tables + entry);
      entry += static_cast<std::int32_t>(sequence.block_table.size());
      ++count;
      positions = std::max(positions, end);
      on_gpu->rows_max = std::max(on_gpu->rows_max, sequence.count);
    }
  }
}

void pack_table(const StepInput& step, int block_size, Packing* packing, CudaStepInput* on_gpu) {
  std::int64_t* slots = nullptr;
  on_gpu->slots = packing->take(step.tokens.size(), &slots);
  fill_slots(step, block_size, slots);
  CudaSequence* sequences = nullptr;
  on_gpu->sequences = packing->take(step.sequences.size(), &sequences);
  std::int32_t* tables = nullptr;
  on_gpu->tables = packing->take(table_entries(step), &tables);
  fill_sequences(step, sequences, tables, on_gpu);
}

}  // namespace

void upload(Device& device, StepInput* step, int block_size) {
  if (!on_gpu(device)) return;
  CudaDevice& gpu = cuda_of(device);
  const CudaDevice::Stage stage = gpu.stage(packed_bytes(*step));
  Packing packing(stage);
  CudaStepInput& on_gpu = step->on_gpu;
  on_gpu = {};
  on_gpu.tokens = packing.take_copy(step->tokens);
  on_gpu.positions = packing.take_copy(step->positions);
  on_gpu.wanted = packing.take_copy(step->wanted);
  const CudaStepInput shared = on_gpu;
  pack_table(*step, block_size, &packing, &on_gpu);
  for (StepInput& other : step->other_tables) {
    other.on_gpu = shared;
    pack_table(other, block_size, &packing, &other.on_gpu);
  }
  gpu.send(stage, packed_bytes(*step));
}

void rotary(Device& device, const QkvRows& rows, const KvLayout& layout, const StepInput& step,
            const Turning& turning) {
  const View& qkv = rows.qkv;
  const int heads = rows.heads + layout.kv_heads;  // queries and keys lie side by side and turn alike
  if (on_gpu(device)) {
    CudaRotary call{qkv.floats(), qkv.stride,      static_cast<std::int32_t>(qkv.rows),
                    heads,        layout.head_dim, turning.rotary_dim};
    call.positions = step.on_gpu.positions;
    call.cos_sin = turning.cos_sin;
    return rotary_cuda(cuda_of(device).queue(), call);
  }
  CpuDevice& cpu = cpu_of(device);
  rotary(cpu.pool(), cpu.isa(), qkv.floats(), qkv.rows, heads, layout.head_dim, turning.rotary_dim, qkv.stride,
         step.positions.data(), turning.cos_sin);
}

View kv_write(Device& device, const KvCacheLayer& cache, const QkvRows& rows, const StepInput& step,
              const Turning& turning) {
  const View& qkv = rows.qkv;
  const std::int64_t q_width = std::int64_t{rows.heads} * cache.layout.head_dim,
                     kv_width = std::int64_t{cache.layout.kv_heads} * cache.layout.head_dim;
  if (on_gpu(device)) {
    CHECK(cache.share.count == 1, "a GPU has all keys of a sequence");
    const View q = device.take(DType::bfloat16, qkv.rows, q_width);
    CudaRotaryWrite call;
    call.qkv = qkv.floats();
    call.ld = qkv.stride;
    call.m = static_cast<std::int32_t>(qkv.rows);
    call.heads = rows.heads;
    call.kv_heads = cache.layout.kv_heads;
    call.head_dim = cache.layout.head_dim;
    call.rotary_dim = turning.rotary_dim;
    call.positions = step.on_gpu.positions;
    call.cos_sin = turning.cos_sin;
    call.q = q.bfloats();
    call.cache = reinterpret_cast<std::uint16_t*>(cache.data);
    call.slots = step.on_gpu.slots;
    call.block_size = cache.layout.block_size;
    rotary_write_cuda(cuda_of(device).queue(), call);
    return q;
  }
  if (turning.rotary_dim > 0) rotary(device, rows, cache.layout, step, turning);
  CpuDevice& cpu = cpu_of(device);
  const float* keys = qkv.floats() + q_width;
  kv_write(cpu.pool(), cpu.isa(), cache, step.sequences, keys, qkv.stride, keys + kv_width, qkv.stride);
  return qkv.columns_from(0, q_width);
}

void attention(Device& device, const KvCacheLayer& cache, const StepInput& step, const AttentionParams& params,
               const View& q, const View& out) {
  if (!on_gpu(device)) {
    CpuDevice& cpu = cpu_of(device);
    return attention(cpu.pool(), cpu.scratch(), cpu.isa(), cache, step.sequences, params, q.floats(), q.stride,
                     out.floats(), out.stride);
  }
  CudaAttention call;
  call.q = q.bfloats();
  call.ldq = q.stride;
  call.out = out.bfloats();
  call.ldo = out.stride;
  call.cache = reinterpret_cast<const std::uint16_t*>(cache.data);
  call.tables = step.on_gpu.tables;
  call.table_stride = 1;
  call.heads = params.heads;
  call.kv_heads = cache.layout.kv_heads;
  call.block_size = cache.layout.block_size;
  call.head_dim = cache.layout.head_dim;
  call.window = params.window;
  call.scale = params.scale;
  if (step.on_gpu.single_rows > 0) {
    const Scratch::Scope scope(device.scratch());
    call.sequences = step.on_gpu.sequences;
    call.sequence_count = step.on_gpu.single_rows;
    call.rows_max = 1;
    call.positions_max = step.on_gpu.single_positions_max;
    call.states = device.take(DType::float32, 1, attention_cuda_state_floats(call)).floats();
    attention_cuda(cuda_of(device).queue(), call);
  }
  if (step.on_gpu.several_rows > 0) {
    call.sequences = step.on_gpu.sequences + step.on_gpu.single_rows;
    call.sequence_count = step.on_gpu.several_rows;
    call.rows_max = step.on_gpu.rows_max;
    call.positions_max = step.on_gpu.several_positions_max;
    attention_cuda(cuda_of(device).queue(), call);
  }
}

}  // namespace chorus
