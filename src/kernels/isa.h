// The instruction sets that kernels are written for, of CPUs and of GPUs. One is chosen for a process's engines at
// start (config --device and --cpu-isa); together with the dtype it is the numerics profile: same profile, same bits
// (design.md sections 1 and 4).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/fields.h"
#include "base/result.h"

namespace chorus {

enum class Isa : std::uint8_t {
  scalar,       // plain C++, the oracle of the others
  avx2_f32,     // AVX2 + FMA
  avx512_bf16,  // AVX-512 F/BW/DQ/VL: bf16 (or f32) weights widened to f32, f32 multiply-add
  amx_bf16,     // AMX-TILE + AMX-BF16: bf16 x bf16 -> f32 tiles; f32 weights go the avx512 way
  cuda_sm90,    // a GPU whose tensor cores sum as Hopper's do, or its emulation (docs/cuda.md); bf16 alone
};

const char* name_of(Isa isa);  // "amx-bf16", ...
constexpr auto enumeration_of(Isa) {
  return Enumeration{"an instruction set", Isa::cuda_sm90};
}
// Those of CPUs that this processor and kernel can run, best first. Asks Linux for AMX (arch_prctl) once per process.
const std::vector<Isa>& available_isas();
// "auto" is available_isas().front(); a name that is unknown or not available here is an error that says what is.
Result<Isa> choose_isa(const std::string& name);
// `device`: auto, cpu (then as above), cuda: a GPU of this machine, or cuda-emulation: for tests, anywhere but in a
// build with CUDA.
Result<Isa> choose_isa(const std::string& device, const std::string& cpu_isa);
// Whether matrices in groups (kernels/linear_groups.h) have AVX-512 VNNI, and AMX-INT8 whose tiles multiply exactly as
// the scalar code does. Neither changes a bit.
bool has_vnni();
bool has_amx_int8();
// Of the host's own part of the work: the best of this CPU where `isa` is a GPU's.
Isa host_isa(Isa isa);

}  // namespace chorus
