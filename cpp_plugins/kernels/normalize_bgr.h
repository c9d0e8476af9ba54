// uint8 BGR frames to normalised RGB: kernel body and its arithmetic.
#pragma once

#include "half.h"

namespace fasterseg::normalize {

constexpr int kThreads = 256;
constexpr int kPixels = 4; // of a thread on the planar path: 12 bytes in, a vector per plane out

// value -> value * scale + shift with both factors in two floats, high and low part.
struct Affine {
  float scale, scale_low, shift, shift_low;
};

inline Affine affine_of(double mean, double std) {
  const double scale = 1.0 / (255.0 * std), shift = -mean / std;
  const float scale_high = static_cast<float>(scale), shift_high = static_cast<float>(shift);
  return {scale_high, static_cast<float>(scale - scale_high), shift_high,
          static_cast<float>(shift - shift_high)};
}

// A product that stays one: nvcc would fuse it with the addition that follows.
FSG_FN float product_of(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

// (value / 255 - mean) / std rounded to float32 once, as the float64 reference is: near the mean
// the two terms cancel, and a plain fused multiply-add would lose the last bits there. The kernel
// waits for memory, not for these ten operations.
FSG_FN float apply(const Affine &affine, int value) {
  const float x = static_cast<float>(value);
  const float product = product_of(x, affine.scale);
  const float product_error = fmaf(x, affine.scale, -product);
  const float sum = product + affine.shift;
  const float part = sum - affine.shift;
  const float sum_error = (affine.shift - (sum - part)) + (product - part);
  const float low = fmaf(x, affine.scale_low, affine.shift_low);
  return sum + (sum_error + (product_error + low));
}

struct Params {
  const uint8_t *frames;
  void *output;
  int64_t pixels;        // of the whole batch
  int64_t plane;         // pixels of one image
  int channels;          // NHWC only
  Affine affine[3];      // RGB
};

// One pixel of the three planes, or of a pixel-major output.
template <class T, class Team> FSG_KERNEL_FN void single(Team &team, const Params &p, bool planar) {
  const int64_t pixel = static_cast<int64_t>(team.tile()) * kThreads + team.thread();
  if (pixel >= p.pixels) {
    return;
  }
  const uint8_t *bgr = p.frames + 3 * pixel;
  T *const output = static_cast<T *>(p.output);
  T rgb[3];
  FSG_UNROLL
  for (int channel = 0; channel < 3; ++channel) {
    rgb[channel] = from_float<T>(apply(p.affine[channel], bgr[2 - channel]));
  }
  if (planar) {
    const int64_t image = pixel / p.plane;
    T *const first = output + 2 * image * p.plane + pixel; // image * 3 planes + pixel in image
    FSG_UNROLL
    for (int channel = 0; channel < 3; ++channel) {
      first[channel * p.plane] = rgb[channel];
    }
    return;
  }
  struct alignas(4 * sizeof(T)) Quad {
    T value[4];
  };
  const T none = from_float<T>(0.0f);
  if (p.channels == 3) {
    FSG_UNROLL
    for (int channel = 0; channel < 3; ++channel) {
      output[3 * pixel + channel] = rgb[channel];
    }
    return;
  }
  Quad *const quads = reinterpret_cast<Quad *>(output + p.channels * pixel);
  quads[0] = {{rgb[0], rgb[1], rgb[2], none}};
  if (p.channels == 8) {
    quads[1] = {{none, none, none, none}};
  }
}

// Four pixels to each plane; the number of pixels of an image must be a multiple of four.
template <class T, class Team> FSG_KERNEL_FN void planes(Team &team, const Params &p) {
  const int64_t pixel = (static_cast<int64_t>(team.tile()) * kThreads + team.thread()) * kPixels;
  if (pixel >= p.pixels) {
    return;
  }
  const uint32_t *const words = reinterpret_cast<const uint32_t *>(p.frames + 3 * pixel);
  const uint32_t loaded[3] = {words[0], words[1], words[2]};
  struct alignas(kPixels * sizeof(T)) Quad {
    T value[kPixels];
  };
  const int64_t image = pixel / p.plane;
  T *const first = static_cast<T *>(p.output) + 2 * image * p.plane + pixel;
  FSG_UNROLL
  for (int channel = 0; channel < 3; ++channel) {
    Quad quad;
    FSG_UNROLL
    for (int index = 0; index < kPixels; ++index) {
      const int byte = 3 * index + 2 - channel; // of the twelve; BGR to RGB
      const int value = static_cast<int>(loaded[byte / 4] >> (byte % 4 * 8) & 0xffu);
      quad.value[index] = from_float<T>(apply(p.affine[channel], value));
    }
    *reinterpret_cast<Quad *>(first + channel * p.plane) = quad;
  }
}

} // namespace fasterseg::normalize
