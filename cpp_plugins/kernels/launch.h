// How a kernel body is launched: by CUDA, or by the emulator where a host compiler builds this.
//
// A kernel is a struct with `Params`, `Shared`, `kThreads` and `run(team, params, shared)`.
// `launch<Kernel>(grid, params, stream)` enqueues it and returns 0 or the cudaError_t.
#pragma once

#include <cstdint>

namespace fasterseg {

// Blocks of a launch; what team.tile(), team.slice() and team.image() count.
struct Grid {
  int64_t tiles;
  int slices, images;
};

// The `Shared` of a kernel that needs none.
struct Nothing {};

} // namespace fasterseg

#if defined(__CUDACC__)
#include "device_team.cuh"
#else
#include "emulator.h"
#endif
