// fp16 biases to float32, as the zoomed convolution's kernel takes them.
#pragma once

#include <cstdint>

namespace fasterseg::trt {

// One launch for one or two (`second` may be null) arrays of `channels` halves, put one after the
// other into `output`. Results as in fasterseg_kernels.h.
int32_t widen(const void *first, const void *second, float *output, int32_t channels, void *stream);

} // namespace fasterseg::trt
