// Whether AMX, where the processor and the kernel offer it, multiplies a small matrix exactly as the scalar code does.
// A wrong answer takes amx-bf16 out of available_isas(): slower, but right.
#pragma once

namespace chorus {

bool amx_works();
// The same of AMX-INT8, for has_amx_int8().
bool amx_int8_works();

}  // namespace chorus
