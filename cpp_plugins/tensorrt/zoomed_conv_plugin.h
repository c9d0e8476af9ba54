// fasterseg::ZoomedConv<1|2>xS<1|2>: bilinear half, 3x3 convolution [, ReLU, 3x3 convolution],
// with stride 1 bilinear back, ReLU.
//
// Inputs: x (N, C, H, W), and weight (O, I, 3, 3) and bias (O,) of each convolution. The output
// is (N, O, H, W), with stride 2 (N, O, H / 2, W / 2), floored. Maps and weights are fp16 in
// channel-last order, channels multiples of eight; biases are float32 or fp16. Attributes
// `half_sizes` and `out_sizes`, where given, must be what follows from x.
#pragma once

#include "plugin.h"

namespace fasterseg::trt {

// The creator of the operator with so many convolutions (1 or 2) and this stride (1 or 2).
Creator &zoomed_conv_creator(int convs, int stride);

} // namespace fasterseg::trt
