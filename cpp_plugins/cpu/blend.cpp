// Checks of the arguments, threads.
#include "checks.h"
#include "team.h"

namespace fasterseg::cpu {
namespace {

int32_t status_of(const FasterSegCpuBlend &a) {
  if (!a.labels || !a.palette || !a.output) {
    return FASTERSEG_CPU_NULL_POINTER;
  }
  if (!is_side(a.height) || !is_side(a.width)) {
    return FASTERSEG_CPU_BAD_SIZE;
  }
  return is_share(a.alpha) ? status_of_team(a.isa, a.threads) : FASTERSEG_CPU_BAD_VALUE;
}

void run(const FasterSegCpuBlend &a) {
  const Kernels &kernels = *kernels_of(a.isa);
  const Palette palette(a.palette, a.alpha);
  const Blending job = palette.job(a.frame, a.labels, a.output);
  split(a.height, team_of(a.threads, a.height), [&](int, int64_t first, int64_t end) {
    kernels.blend(job, first * a.width, end * a.width);
  });
}

} // namespace
} // namespace fasterseg::cpu

extern "C" int32_t fasterseg_cpu_blend(const FasterSegCpuBlend *arguments) {
  return fasterseg::cpu::checked(arguments, fasterseg::cpu::status_of, fasterseg::cpu::run);
}
