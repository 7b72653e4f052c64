#include "kernels/ops.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/attention_cuda.h"
#include "kernels/cpu_device.h"
#include "kernels/cuda_device.h"
#include "kernels/elementwise.h"
#include "kernels/elementwise_cuda.h"
#include "kernels/linear_cuda.h"

namespace chorus {
namespace {

bool on_gpu(const Device& device) {
  return device.kind() == DeviceKind::cuda;
}

std::int32_t int32_of(std::int64_t value) {
  return static_cast<std::int32_t>(value);
}

// f(row) for rows [0, m), on the threads of a CPU.
template <typename F>
void for_each_row(CpuDevice& cpu, std::int64_t m, F f) {
  cpu.pool().for_range(m, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) f(row);
  });
}

LinearInput on_cpu(const ProductInput& x) {
  if (x.prepared != nullptr) return {nullptr, x.rows.rows, x.rows.stride, x.prepared};
  return {x.rows.floats(), x.rows.rows, x.rows.stride};
}

CudaLinear cuda_linear_of(const PackedLinear& weight, const ProductInput& x) {
  const LinearShape packed = packed_shape(weight.isa, weight.format, weight.shape);
  CHECK(x.rows.columns == packed.columns, "x of {} columns, W {} x {}", x.rows.columns, packed.rows, packed.columns);
  CudaLinear call;
  call.x = x.rows.bfloats();
  call.ldx = x.rows.stride;
  call.m = int32_of(x.rows.rows);
  call.w = reinterpret_cast<const std::uint16_t*>(weight.data);
  call.rows = int32_of(packed.rows);
  call.columns = int32_of(packed.columns);
  call.segments = packed.segments;
  return call;
}

CudaElements elements_of(CudaPointwise what, const View& x, const View& y) {
  CudaElements call;
  call.what = what;
  call.m = int32_of(y.rows);
  call.width = int32_of(y.columns);
  call.x = x.data == nullptr ? nullptr : x.floats();
  call.ldx = x.stride;
  call.ldy = y.stride;
  if (y.dtype == DType::bfloat16) {
    call.y_rounded = y.bfloats();
  } else {
    call.y = y.floats();
  }
  return call;
}

}  // namespace

Result<std::unique_ptr<Device>> make_device(Isa isa, ThreadPool& pool, int gpu) {
  if (isa != Isa::cuda_sm90) return std::unique_ptr<Device>(std::make_unique<CpuDevice>(pool, isa));
  CHORUS_TRY(std::unique_ptr<Device> device, CudaDevice::open(gpu));
  return device;
}

ProductInput product_input(Device& device, const View& x) {
  if (!on_gpu(device)) return {x};
  const View rounded = device.take(DType::bfloat16, x.rows, x.columns);
  elements_cuda(cuda_of(device).queue(), elements_of(CudaPointwise::round, x, rounded));
  return {rounded};
}

View take_product(Device& device, const PackedLinear& weight, std::int64_t rows) {
  View y = device.take(DType::float32, rows, packed_shape(weight.isa, weight.format, weight.shape).rows);
  y.columns = weight.shape.rows;
  return y;
}

void linear(Device& device, const PackedLinear& weight, const ProductInput& x, const View& y,
            const LinearEpilogue& epilogue) {
  if (!on_gpu(device)) {
    CpuDevice& cpu = cpu_of(device);
    return linear(cpu.pool(), cpu.scratch(), weight, on_cpu(x), y.floats(), y.stride, epilogue);
  }
  CudaLinear call = cuda_linear_of(weight, x);
  CHECK(y.stride >= call.rows, "y has a stride of {}, W {} rows", y.stride, call.rows);
  call.bias = epilogue.bias;
  call.y = y.floats();
  call.ldy = y.stride;
  call.output = epilogue.accumulate ? CudaLinearOutput::accumulate : CudaLinearOutput::store;
  linear_cuda(cuda_of(device).queue(), call);
}

ProductInput gated_input(Device& device, const PackedLinear& gate_up, const float* bias, const ProductInput& x,
                         const PackedLinear& next, Activation activation) {
  if (!on_gpu(device)) {
    CpuDevice& cpu = cpu_of(device);
    const LinearInput made = gated_input(cpu.pool(), cpu.scratch(), gate_up, bias, on_cpu(x), next, activation);
    View rows{nullptr, DType::float32, made.m, next.shape.columns, made.stride, DeviceKind::cpu};
    rows.data = reinterpret_cast<std::byte*>(const_cast<float*>(made.rows));
    return {rows, made.prepared};
  }
  CHECK(activation != Activation::clamped_swish, "the clamped swish is not computed on GPUs");
  CudaLinear call = cuda_linear_of(gate_up, x);
  const View out = device.take(DType::bfloat16, x.rows.rows, call.rows / 2);
  call.bias = bias;
  call.y = out.bfloats();
  call.ldy = out.stride;
  call.output = activation == Activation::silu ? CudaLinearOutput::gate : CudaLinearOutput::gelu_gate;
  linear_cuda(cuda_of(device).queue(), call);
  return {out};
}

void look_up(Device& device, const EmbeddingRows& embedding, const StepInput& step, const View& out) {
  const PackedLinear& weight = embedding.weight;
  const LinearShape& shape = weight.shape;
  if (on_gpu(device)) {
    CudaGather call;
    call.from = reinterpret_cast<const std::uint16_t*>(weight.data);
    call.ldf = embedding.is_packed ? packed_shape(weight.isa, weight.format, shape).columns : shape.columns;
    call.first = embedding.first_row;
    call.rows = shape.rows;
    call.index_of = step.on_gpu.tokens;
    call.m = int32_of(out.rows);
    call.width = int32_of(out.columns);
    call.out = out.floats();
    call.ldo = out.stride;
    return gather_cuda(cuda_of(device).queue(), call);
  }
  for_each_row(cpu_of(device), out.rows, [&](std::int64_t i) {
    const std::int64_t row = step.tokens[static_cast<std::size_t>(i)] - embedding.first_row;
    float* to = out.floats() + i * out.stride;
    if (row < 0 || row >= shape.rows) {
      std::fill_n(to, out.columns, 0.0F);
    } else if (embedding.is_packed) {
      unpack_linear_row(weight, row, to);
    } else {
      const std::int64_t first = row * shape.columns;
      for (std::int64_t c = 0; c < shape.columns; ++c)
        to[c] = load_as_float(weight.data, weight.format.dtype, static_cast<std::size_t>(first + c));
    }
  });
}

void gather_wanted(Device& device, const View& from, const StepInput& step, std::int64_t first, const View& out) {
  if (on_gpu(device)) {
    CudaGather call;
    call.from_float = from.floats();
    call.ldf = from.stride;
    call.rows = from.rows;
    call.index_of = step.on_gpu.wanted + first;
    call.m = int32_of(out.rows);
    call.width = int32_of(out.columns);
    call.out = out.floats();
    call.ldo = out.stride;
    return gather_cuda(cuda_of(device).queue(), call);
  }
  for (std::int64_t i = 0; i < out.rows; ++i) {
    const float* row = from.floats() + step.wanted[static_cast<std::size_t>(first + i)] * from.stride;
    std::copy_n(row, out.columns, out.floats() + i * out.stride);
  }
}

void norm(Device& device, const View& x, const NormWeights& weights, float eps, const View& out) {
  if (on_gpu(device)) {
    CudaNorm call{x.floats(), x.stride, int32_of(x.rows), int32_of(x.columns), weights.weight, eps};
    call.is_layer_norm = weights.is_layer_norm;
    call.bias = weights.bias;
    call.ldo = out.stride;
    if (out.dtype == DType::bfloat16) {
      call.out = out.bfloats();
    } else {
      call.out_float = out.floats();
    }
    return norm_cuda(cuda_of(device).queue(), call);
  }
  CpuDevice& cpu = cpu_of(device);
  if (weights.is_layer_norm) {
    return layer_norm(cpu.pool(), cpu.isa(), x.floats(), x.rows, x.columns, x.stride, weights.weight, weights.bias, eps,
                      out.floats(), out.stride);
  }
  rms_norm(cpu.pool(), cpu.isa(), x.floats(), x.rows, x.columns, x.stride, weights.weight, eps, out.floats(),
           out.stride);
}

void norm_heads(Device& device, const View& x, int heads, const float* weight, float eps) {
  const std::int64_t head_dim = x.columns / heads;
  if (on_gpu(device)) {
    CudaNorm call{x.floats(), x.stride, int32_of(x.rows), int32_of(head_dim), weight, eps};
    call.ldo = x.stride;
    call.out_float = x.floats();
    call.heads = heads;
    return norm_cuda(cuda_of(device).queue(), call);
  }
  CpuDevice& cpu = cpu_of(device);
  rms_norm_heads(cpu.pool(), cpu.isa(), x.floats(), x.rows, heads, static_cast<int>(head_dim), x.stride, weight, eps);
}

void add_positions(Device& device, const PackedLinear& table, const StepInput& step, const View& out) {
  if (on_gpu(device)) {
    const Scratch::Scope scope(device.scratch());
    const View rows = device.take(DType::float32, out.rows, out.columns);
    CudaGather call;
    call.from = reinterpret_cast<const std::uint16_t*>(table.data);
    call.ldf = table.shape.columns;
    call.rows = table.shape.rows;
    call.index_of = step.on_gpu.positions;
    call.m = int32_of(out.rows);
    call.width = int32_of(out.columns);
    call.out = rows.floats();
    call.ldo = rows.stride;
    gather_cuda(cuda_of(device).queue(), call);
    return add_scaled(device, rows, 1.0F, out);
  }
  for_each_row(cpu_of(device), out.rows, [&](std::int64_t i) {
    const std::int64_t first = std::int64_t{step.positions[static_cast<std::size_t>(i)]} * table.shape.columns;
    float* to = out.floats() + i * out.stride;
    for (std::int64_t c = 0; c < out.columns; ++c)
      to[c] += load_as_float(table.data, table.format.dtype, static_cast<std::size_t>(first + c));
  });
}

void gelu_tanh(Device& device, const View& x) {
  if (on_gpu(device)) return elements_cuda(cuda_of(device).queue(), elements_of(CudaPointwise::gelu_tanh, {}, x));
  CpuDevice& cpu = cpu_of(device);
  gelu_tanh(cpu.pool(), cpu.isa(), x.floats(), x.rows, x.columns, x.stride);
}

void softcap(Device& device, float cap, const View& x) {
  if (on_gpu(device)) {
    CudaElements call = elements_of(CudaPointwise::softcap, {}, x);
    call.factor = cap;
    return elements_cuda(cuda_of(device).queue(), call);
  }
  CpuDevice& cpu = cpu_of(device);
  softcap(cpu.pool(), cpu.isa(), cap, x.floats(), x.rows, x.columns, x.stride);
}

void fill_zero(Device& device, const View& x) {
  if (on_gpu(device)) return elements_cuda(cuda_of(device).queue(), elements_of(CudaPointwise::zero, {}, x));
  for (std::int64_t row = 0; row < x.rows; ++row) std::fill_n(x.floats() + row * x.stride, x.columns, 0.0F);
}

void scale(Device& device, float factor, const View& x) {
  if (on_gpu(device)) {
    CudaElements call = elements_of(CudaPointwise::scale, {}, x);
    call.factor = factor;
    return elements_cuda(cuda_of(device).queue(), call);
  }
  for_each_row(cpu_of(device), x.rows, [&](std::int64_t row) {
    float* to = x.floats() + row * x.stride;
    for (std::int64_t i = 0; i < x.columns; ++i) to[i] *= factor;
  });
}

void add_scaled(Device& device, const View& x, float factor, const View& y) {
  if (on_gpu(device)) {
    CudaElements call = elements_of(CudaPointwise::add, x, y);
    call.factor = factor;
    return elements_cuda(cuda_of(device).queue(), call);
  }
  for_each_row(cpu_of(device), y.rows, [&](std::int64_t row) {
    const float* from = x.floats() + row * x.stride;
    float* to = y.floats() + row * y.stride;
    for (std::int64_t i = 0; i < y.columns; ++i) to[i] += factor * from[i];
  });
}

const std::int32_t* argmax(Device& device, const View& logits) {
  const Scratch::Scope scope(device.scratch());
  CudaArgmax call{logits.floats(), logits.stride, int32_of(logits.rows), int32_of(logits.columns)};
  call.out = device.scratch().take_array<std::int32_t>(logits.rows);
  argmax_cuda(cuda_of(device).queue(), call);
  const auto bytes = static_cast<std::size_t>(logits.rows) * sizeof(std::int32_t);
  return reinterpret_cast<const std::int32_t*>(device.read(reinterpret_cast<const std::byte*>(call.out), bytes));
}

}  // namespace chorus
