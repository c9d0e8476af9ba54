// Checks of the arguments, the exact values, threads.
#include <cmath>

#include "checks.h"
#include "team.h"

namespace fasterseg::cpu {
namespace {

int32_t status_of(const FasterSegCpuNormalizeBgr &a) {
  if (!a.frames || !a.output) {
    return FASTERSEG_CPU_NULL_POINTER;
  }
  if (!is_side(a.height) || !is_side(a.width) || a.batch < 1) {
    return FASTERSEG_CPU_BAD_SIZE;
  }
  for (int channel = 0; channel < 3; ++channel) {
    if (!std::isfinite(a.mean[channel]) || !(a.std[channel] > 0.0)) {
      return FASTERSEG_CPU_BAD_VALUE;
    }
  }
  return status_of_team(a.isa, a.threads);
}

// The 768 values that there are. The kernels multiply and add, which is quicker than looking up;
// `exact` says whether that gives each of them: it does unless mean cancels a value / 255.
void prepare(const FasterSegCpuNormalizeBgr &a, Normalizing &job, std::vector<float> &table) {
  job.exact = true;
  for (int channel = 0; channel < 3; ++channel) {
    const double mean = a.mean[channel], std = a.std[channel];
    const double scale = 1.0 / (255.0 * std), shift = -mean / std;
    job.scale[channel] = scale;
    job.shift[channel] = shift;
    for (int value = 0; value < 256; ++value) {
      const float wanted = static_cast<float>((value / 255.0 - mean) / std);
      table[static_cast<std::size_t>(256 * channel + value)] = wanted;
      job.exact = job.exact && static_cast<float>(value * scale + shift) == wanted;
    }
  }
}

void run(const FasterSegCpuNormalizeBgr &a) {
  const Kernels &kernels = *kernels_of(a.isa);
  std::vector<float> table(3 * 256);
  Normalizing job = {a.frames, a.output, int64_t{a.height} * a.width, {}, {}, true, table.data()};
  prepare(a, job, table);
  const int64_t all = int64_t{a.batch} * a.height;
  split(all, team_of(a.threads, all), [&](int, int64_t first, int64_t end) {
    kernels.normalize(job, first * a.width, end * a.width);
  });
}

} // namespace
} // namespace fasterseg::cpu

extern "C" int32_t fasterseg_cpu_normalize_bgr(const FasterSegCpuNormalizeBgr *arguments) {
  return fasterseg::cpu::checked(arguments, fasterseg::cpu::status_of, fasterseg::cpu::run);
}
