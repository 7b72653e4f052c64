#include "kernels/isa.h"

#include <array>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels/amx_check.h"
#include "kernels/gpu_runtime.h"

namespace chorus {
namespace {

constexpr std::array all_isas = {Isa::amx_bf16, Isa::avx512_bf16, Isa::avx2_f32, Isa::scalar};

#if defined(__x86_64__)
struct CpuidLeaf {
  std::uint32_t a = 0, b = 0, c = 0, d = 0;
};

CpuidLeaf cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
  CpuidLeaf r;
  if (__get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d) == 0) return {};
  return r;
}

// The register state that the operating system saves on a context switch (Intel SDM vol. 1, section 13.3: XCR0).
std::uint64_t saved_state() {
  const bool osxsave = (cpuid(1, 0).c >> 27 & 1U) != 0;
  if (!osxsave) return 0;
  std::uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<std::uint64_t>(high) << 32 | low;
}

constexpr std::uint64_t ymm_state = 0x6;   // XMM, YMM
constexpr std::uint64_t zmm_state = 0xe6;  // and mask registers, ZMM 0-15, ZMM 16-31

bool bits_set(std::uint64_t value, std::uint64_t bits) {
  return (value & bits) == bits;
}

bool has_avx2() {
  const std::uint32_t fma_f16c_avx = 1U << 12 | 1U << 29 | 1U << 28;
  return bits_set(saved_state(), ymm_state) && bits_set(cpuid(1, 0).c, fma_f16c_avx) &&
         bits_set(cpuid(7, 0).b, 1U << 5);
}

bool has_avx512() {
  const std::uint32_t f_dq_bw_vl = 1U << 16 | 1U << 17 | 1U << 30 | 1U << 31;
  return has_avx2() && bits_set(saved_state(), zmm_state) && bits_set(cpuid(7, 0).b, f_dq_bw_vl);
}

// The tile registers are off until a process asks for them (Linux: Documentation/arch/x86/xstate.rst).
bool request_tiles() {
  constexpr long arch_req_xcomp_perm = 0x1023, xfeature_xtiledata = 18;
  return syscall(SYS_arch_prctl, arch_req_xcomp_perm, xfeature_xtiledata) == 0;
}

bool has_amx() {
  const std::uint32_t tile_and_bf16 = 1U << 24 | 1U << 22;
  const std::uint64_t tile_state = 0x60000;
  return has_avx512() && bits_set(saved_state(), tile_state) && bits_set(cpuid(7, 0).d, tile_and_bf16) &&
         request_tiles() && amx_works();
}

bool find_vnni() {
  return has_avx512() && bits_set(cpuid(7, 0).c, 1U << 11);
}

bool find_amx_int8() {
  const std::uint32_t tile_and_int8 = 1U << 24 | 1U << 25;
  const std::uint64_t tile_state = 0x60000;
  return find_vnni() && bits_set(saved_state(), tile_state) && bits_set(cpuid(7, 0).d, tile_and_int8) &&
         request_tiles() && amx_int8_works();
}
#else
bool find_vnni() {
  return false;
}
bool find_amx_int8() {
  return false;
}
bool has_amx() {
  return false;
}
bool has_avx2() {
  return false;
}
bool has_avx512() {
  return false;
}
#endif

bool available(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return true;
    case Isa::avx2_f32:
      return has_avx2();
    case Isa::avx512_bf16:
      return has_avx512();
    case Isa::amx_bf16:
      return has_amx();
    case Isa::cuda_sm90:
      break;
  }
  return false;
}

}  // namespace

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return "scalar";
    case Isa::avx2_f32:
      return "avx2-f32";
    case Isa::avx512_bf16:
      return "avx512-bf16";
    case Isa::amx_bf16:
      return "amx-bf16";
    case Isa::cuda_sm90:
      return "cuda-sm90";
  }
  return "unknown";
}

const std::vector<Isa>& available_isas() {
  static const std::vector<Isa> isas = [] {
    std::vector<Isa> found;
    for (const Isa isa : all_isas) {
      if (available(isa)) found.push_back(isa);
    }
    return found;
  }();
  return isas;
}

bool has_vnni() {
  static const bool found = find_vnni();
  return found;
}

bool has_amx_int8() {
  static const bool found = find_amx_int8();
  return found;
}

Result<Isa> choose_isa(const std::string& name) {
  if (name == "auto") return available_isas().front();
  std::string names = "auto";
  for (const Isa isa : available_isas()) {
    if (name == name_of(isa)) return isa;
    names += std::string(", ") + name_of(isa);
  }
  for (const Isa isa : all_isas) {
    if (name == name_of(isa)) {
      return fail(ErrorCode::invalid_argument, "--cpu-isa {}: this processor or kernel cannot run it: give one of {}",
                  name, names);
    }
  }
  return fail(ErrorCode::invalid_argument, "--cpu-isa {}: unknown instruction set: give one of {}", name, names);
}

Result<Isa> choose_isa(const std::string& device, const std::string& cpu_isa) {
  if (device == "cuda-emulation" && !gpu::is_real()) return Isa::cuda_sm90;
  if (device != "cuda") return choose_isa(cpu_isa);
  if (gpu::is_real()) return Isa::cuda_sm90;
  return fail(ErrorCode::invalid_argument,
              "--device cuda: this build has no CUDA backend (cmake -DCHORUS_CUDA=ON makes one); use --device cpu");
}

Isa host_isa(Isa isa) {
  return isa == Isa::cuda_sm90 ? available_isas().front() : isa;
}

}  // namespace chorus
