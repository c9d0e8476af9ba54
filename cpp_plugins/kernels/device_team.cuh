// The threads of a block on the device: what a kernel body asks of its team.
#pragma once

#include <cuda_runtime.h>

#include "launch.h"
#include "portable.h"

namespace fasterseg {

struct DeviceTeam {
  __device__ __forceinline__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ __forceinline__ int lane() const { return thread() % 32; }
  __device__ __forceinline__ int warp() const { return thread() / 32; }
  __device__ __forceinline__ int tile() const { return static_cast<int>(blockIdx.x); }
  __device__ __forceinline__ int slice() const { return static_cast<int>(blockIdx.y); }
  __device__ __forceinline__ int image() const { return static_cast<int>(blockIdx.z); }

  __device__ __forceinline__ void sync() { __syncthreads(); }
  __device__ __forceinline__ void sync_warp() { __syncwarp(); }

  __device__ __forceinline__ uint32_t ballot(bool vote) {
    return __ballot_sync(0xffffffffu, vote);
  }

  __device__ __forceinline__ float warp_max(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
    }
    return value;
  }

  // Four 8x8 matrices of 16-bit values from shared memory; lane i names row i % 8 of matrix i / 8.
  // Every lane gets two neighbouring values of row lane / 4 of each matrix.
  __device__ __forceinline__ void load_matrices(uint32_t (&matrices)[4], const void *row) {
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
                 : "r"(address)
                 : "memory");
  }

  // 16x8 float32 sums += 16x16 fp16 (row by row) times 16x8 fp16 (column by column).
  __device__ __forceinline__ void multiply_add(float (&sums)[4], const uint32_t (&a)[4],
                                               uint32_t b_low, uint32_t b_high) {
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));
#else
    // Turing multiplies 16x8 by 8x8; the two halves of the depth are the same registers.
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(b_low));
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[2]), "r"(a[3]), "r"(b_high));
#endif
  }
};

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads)
    kernel_of(const typename Kernel::Params params) {
  __shared__ typename Kernel::Shared shared;
  DeviceTeam team;
  Kernel::run(team, params, shared);
}

template <class Kernel>
int32_t launch(const Grid &grid, const typename Kernel::Params &params, void *stream) {
  if (grid.tiles > INT32_MAX) {
    return cudaErrorInvalidConfiguration;
  }
  const dim3 blocks(static_cast<unsigned>(grid.tiles), static_cast<unsigned>(grid.slices),
                    static_cast<unsigned>(grid.images));
  typename Kernel::Params copy = params;
  void *arguments[] = {&copy};
  return static_cast<int32_t>(
      cudaLaunchKernel(reinterpret_cast<const void *>(&kernel_of<Kernel>), blocks,
                       dim3(Kernel::kThreads), arguments, 0, static_cast<cudaStream_t>(stream)));
}

inline const char *launch_error(int32_t result) {
  return cudaGetErrorString(static_cast<cudaError_t>(result));
}

} // namespace fasterseg
