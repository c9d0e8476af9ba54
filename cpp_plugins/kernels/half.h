// IEEE half precision as bits, and the 16-byte vectors in which kernels move it.
#pragma once

#include <cstring>

#include "portable.h"

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#endif

namespace fasterseg {

struct Half {
  uint16_t bits;
};

// Eight halves: one 16-byte access.
struct alignas(16) Half8 {
  uint32_t word[4];
};

// Exact.
FSG_FN float to_float(Half half) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(half.bits));
#else
  const uint32_t sign = static_cast<uint32_t>(half.bits & 0x8000u) << 16;
  const uint32_t exponent = (half.bits >> 10) & 0x1fu;
  const uint32_t fraction = half.bits & 0x3ffu;
  float value;
  if (exponent == 0) { // zero and subnormals: fraction * 2^-24
    value = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -value : value;
  }
  const uint32_t wide = exponent == 31 ? 255u : exponent + 112u;
  const uint32_t bits = sign | (wide << 23) | (fraction << 13);
  std::memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

FSG_FN float to_float(float value) { return value; }

// To nearest, ties to even; overflow gives infinity.
FSG_FN Half to_half(float value) {
#if defined(__CUDA_ARCH__)
  return {__half_as_ushort(__float2half_rn(value))};
#else
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  bits &= 0x7fffffffu;
  uint32_t half;
  if (bits > 0x7f800000u) { // NaN
    half = 0x7fffu;
  } else if (bits >= 0x477ff000u) { // from 65520 on everything rounds to infinity
    half = 0x7c00u;
  } else if (bits < 0x38800000u) { // below 2^-14: subnormal; the addition rounds for us
    float magnitude;
    std::memcpy(&magnitude, &bits, sizeof magnitude);
    magnitude += 0.5f;
    std::memcpy(&half, &magnitude, sizeof half);
    half -= 0x3f000000u;
  } else {
    bits += 0xc8000fffu + ((bits >> 13) & 1u); // rebias the exponent by -112 and round to even
    half = bits >> 13;
  }
  return {static_cast<uint16_t>(sign | half)};
#endif
}

template <class T> FSG_FN T from_float(float value);
template <> FSG_FN float from_float<float>(float value) { return value; }
template <> FSG_FN Half from_float<Half>(float value) { return to_half(value); }

// The two halves of a word, the lower first.
FSG_FN void unpack(uint32_t word, float &low, float &high) {
  low = to_float(Half{static_cast<uint16_t>(word)});
  high = to_float(Half{static_cast<uint16_t>(word >> 16)});
}

FSG_FN uint32_t pack(float low, float high) {
#if defined(__CUDA_ARCH__)
  const __half2 pair = __floats2half2_rn(low, high);
  uint32_t word;
  memcpy(&word, &pair, sizeof word);
  return word;
#else
  return to_half(low).bits | static_cast<uint32_t>(to_half(high).bits) << 16;
#endif
}

// A 16-byte read of memory that no kernel writes meanwhile.
FSG_FN Half8 load(const Half8 *from) {
#if defined(__CUDA_ARCH__)
  const uint4 words = __ldg(reinterpret_cast<const uint4 *>(from));
  return {{words.x, words.y, words.z, words.w}};
#else
  return *from;
#endif
}

FSG_FN Half8 zeros() { return {{0, 0, 0, 0}}; }

// What eight halves are while they are computed with.
struct alignas(16) Float8 {
  float of[8];
};

// Two 16-byte reads of memory that no kernel writes meanwhile.
FSG_FN Float8 load(const Float8 *from) {
#if defined(__CUDA_ARCH__)
  const float4 *const halves = reinterpret_cast<const float4 *>(from);
  const float4 low = __ldg(halves), high = __ldg(halves + 1);
  return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
#else
  return *from;
#endif
}

FSG_KERNEL_FN Float8 widened(const Half8 &halves) {
  Float8 values;
  FSG_UNROLL
  for (int word = 0; word < 4; ++word) {
    unpack(halves.word[word], values.of[2 * word], values.of[2 * word + 1]);
  }
  return values;
}

FSG_KERNEL_FN Half8 narrowed(const Float8 &values) {
  Half8 halves;
  FSG_UNROLL
  for (int word = 0; word < 4; ++word) {
    halves.word[word] = pack(values.of[2 * word], values.of[2 * word + 1]);
  }
  return halves;
}

// The greater of 0 and the value; NaN stays NaN.
FSG_FN Half rectified(Half half) {
  return half.bits >= 0x8000u && half.bits <= 0xfc00u ? Half{0} : half;
}

FSG_KERNEL_FN Half8 rectified(const Half8 &halves) {
  Half8 result;
  FSG_UNROLL
  for (int index = 0; index < 4; ++index) {
    const uint32_t word = halves.word[index];
#if defined(__CUDA_ARCH__)
    __half2 pair;
    memcpy(&pair, &word, sizeof word);
    pair = __hmax2_nan(pair, __half2(__ushort_as_half(0), __ushort_as_half(0)));
    memcpy(&result.word[index], &pair, sizeof word);
#else
    const Half low = rectified(Half{static_cast<uint16_t>(word)});
    const Half high = rectified(Half{static_cast<uint16_t>(word >> 16)});
    result.word[index] = low.bits | static_cast<uint32_t>(high.bits) << 16;
#endif
  }
  return result;
}

} // namespace fasterseg
