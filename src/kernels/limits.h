// What a machine can do at most in a product, measured by loops that do nothing else: the yardsticks of `chorus bench
// kernels`. Each call takes a good part of a second.
#pragma once

#include "kernels/isa.h"
#include "kernels/thread_pool.h"
#include "tensor/dtype.h"

namespace chorus {

// Floating-point operations (two a multiply-add) per second of all threads, operands in registers, with the
// instructions that the profile's products use.
double multiply_add_peak_per_s(ThreadPool& pool, Isa isa, DType dtype);

// Bytes per second that all threads read from memory that no cache holds.
double read_bandwidth_bytes_per_s(ThreadPool& pool);

}  // namespace chorus
