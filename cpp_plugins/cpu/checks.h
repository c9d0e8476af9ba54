// What the functions of the interface share: limits, the palette, errors as results.
#pragma once

#include <new>
#include <vector>

#include "fasterseg_cpu.h"
#include "isa.h"

namespace fasterseg::cpu {

inline bool is_side(int32_t side) { return side >= 1 && side <= FASTERSEG_CPU_MAX_SIDE; }

inline bool is_share(double share) { return share >= 0.0 && share <= 1.0; }

inline int32_t status_of_team(int32_t isa, int32_t threads) {
  if (threads < 1 || threads > FASTERSEG_CPU_MAX_THREADS) {
    return FASTERSEG_CPU_BAD_SIZE;
  }
  if (!fasterseg_cpu_isa_name(isa)) {
    return FASTERSEG_CPU_UNKNOWN_ISA;
  }
  return kernels_of(isa) ? FASTERSEG_CPU_OK : FASTERSEG_CPU_MISSING_ISA;
}

// Colours times their share, as the blending kernels read them.
class Palette {
public:
  Palette(const uint8_t *colours, double alpha)
      : colours_(colours), frame_share_(static_cast<float>(1.0 - alpha)) {
    const float share = static_cast<float>(alpha);
    for (int index = 0; colours && index < 3 * 256; ++index) {
      products_[index / 3 * 4 + index % 3] = static_cast<float>(colours[index]) * share;
    }
  }

  Blending job(const uint8_t *frame, const uint8_t *labels, uint8_t *output) const {
    return {frame, labels, colours_, output, frame_share_, products_};
  }

private:
  const uint8_t *colours_;
  float frame_share_;
  float products_[4 * 256] = {};
};

template <class Arguments, class Check, class Run>
int32_t checked(const Arguments *arguments, Check check, Run run) {
  if (!arguments) {
    return FASTERSEG_CPU_NULL_POINTER;
  }
  if (const int32_t status = check(*arguments)) {
    return status;
  }
  try {
    run(*arguments);
  } catch (const std::bad_alloc &) {
    return FASTERSEG_CPU_OUT_OF_MEMORY;
  }
  return FASTERSEG_CPU_OK;
}

} // namespace fasterseg::cpu
