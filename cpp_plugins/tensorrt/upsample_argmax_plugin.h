// fasterseg::UpsampleArgmax: logits (N, C, h, w) to int8 class ids (N, 8h, 8w).
//
// Logits are float32 or fp16, planar, or fp16 by pixels with the classes padded to eight, as
// convolutions give them. Attribute `scale`: 8.
#pragma once

#include "plugin.h"

namespace fasterseg::trt {

Creator &upsample_argmax_creator();

} // namespace fasterseg::trt
