// What is checked before anything is enqueued.
#pragma once

#include <cstdint>

#include "fasterseg_kernels.h"

namespace fasterseg {

constexpr int kMaxBatch = 65535; // the largest third side of a grid
constexpr int64_t kMaxValues = INT32_MAX;

inline bool is_size(int batch, int height, int width, int least_side) {
  return batch >= 1 && batch <= kMaxBatch && height >= least_side && width >= least_side &&
         height <= FASTERSEG_MAX_SIDE && width <= FASTERSEG_MAX_SIDE;
}

// Offsets inside one image are 32 bits wide.
inline bool fits(int height, int width, int channels) {
  return static_cast<int64_t>(height) * width * channels <= kMaxValues;
}

inline bool is_aligned(const void *pointer, int bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(bytes) == 0;
}

inline bool is_type(int32_t type) { return type == FASTERSEG_FP32 || type == FASTERSEG_FP16; }

inline bool is_layout(int32_t layout) {
  return layout == FASTERSEG_NCHW || layout == FASTERSEG_NHWC;
}

} // namespace fasterseg
