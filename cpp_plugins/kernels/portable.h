// What lets one source be a CUDA kernel for nvcc and an emulated one for any C++17 compiler.
#pragma once

#include <cstdint>

// FSG_FN runs on both sides; FSG_KERNEL_FN is part of a kernel: device only under nvcc, while a
// host compiler sees plain functions over an emulated team (tests/unit/cpp/emulator.h).
#if defined(__CUDACC__)
#define FSG_FN __host__ __device__ __forceinline__
#define FSG_KERNEL_FN __device__ __forceinline__
#define FSG_UNROLL _Pragma("unroll")
#define FSG_NO_UNROLL _Pragma("unroll 1")
#else
#define FSG_FN inline
#define FSG_KERNEL_FN inline
#define FSG_UNROLL
#define FSG_NO_UNROLL
#endif

namespace fasterseg {

FSG_FN constexpr int ceil_div(int value, int by) { return (value + by - 1) / by; }

FSG_FN constexpr int at_most(int value, int limit) { return value < limit ? value : limit; }

// Image number `image` of a batch: the only place where offsets need 64 bits, as the interface
// admits images of at most 2^31 - 1 values.
template <class T> FSG_FN T *image_of(T *batch, int image, int values) {
  return batch + static_cast<int64_t>(image) * values;
}

} // namespace fasterseg
