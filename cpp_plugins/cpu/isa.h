// Which instruction sets the library holds, and which this CPU has.
#pragma once

#include "jobs.h"

namespace fasterseg::cpu {

// Kernels by the number that callers pass; NULL for a number that is none or a set that the CPU
// lacks.
const Kernels *kernels_of(int32_t isa);

} // namespace fasterseg::cpu
