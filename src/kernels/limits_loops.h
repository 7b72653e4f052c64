// Loops of multiply-adds in registers, one an instruction set. Private to limits*.cc.
#pragma once

#include <cstdint>

namespace chorus {

// Each in the file of its instruction set; call only where available_isas() has it. Gives the operations of `steps`.
double multiply_add_scalar(std::int64_t steps);
double multiply_add_avx2(std::int64_t steps);
double multiply_add_avx512(std::int64_t steps);
double multiply_add_amx(std::int64_t steps);

}  // namespace chorus
