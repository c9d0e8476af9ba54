// What the plugins must compute, in double precision from the definitions.
#pragma once

#include <cstdint>
#include <vector>

namespace harness {

// Values of a tensor in the order of its shape (planar), whatever its type and format.
using Values = std::vector<double>;

struct Labels {
  std::vector<int> ids;
  std::vector<double> clearance; // by how much the greatest logit exceeds the second
};

// (batch, classes, height, width) logits to labels of eight times the size.
Labels upsample_argmax(const Values &logits, int batch, int classes, int height, int width);

struct Convolution {
  Values weight; // (out, in, 3, 3)
  Values bias;   // (out,)
};

struct Map {
  int batch, channels, height, width;
  Values values;
};

// Rounded to fp16 where the maps between the steps are fp16: after half and after the first ReLU.
Map zoomed_conv(const Map &input, const std::vector<Convolution> &convolutions, int stride);

// To the nearest fp16.
double to_fp16(double value);

} // namespace harness
