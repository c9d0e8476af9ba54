#include "isa.h"

#include <cstring>

#include "fasterseg_cpu.h"

namespace fasterseg::cpu {
namespace {

struct Isa {
  const char *name;
  const Kernels *kernels;
  bool (*is_here)();
};

bool always() { return true; }

#if defined(__x86_64__)

// As the operating system sees it, too: the compiler's test asks whether it keeps the registers.
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

constexpr Isa kIsas[] = {{"avx512", &kAvx512, has_avx512},
                         {"avx2", &kAvx2, has_avx2},
                         {"baseline", &kBaseline, always}};
constexpr char kNames[] = "avx512 avx2 baseline";

#elif defined(__aarch64__)

constexpr Isa kIsas[] = {{"neon", &kNeon, always}, {"baseline", &kBaseline, always}};
constexpr char kNames[] = "neon baseline";

#else

constexpr Isa kIsas[] = {{"baseline", &kBaseline, always}};
constexpr char kNames[] = "baseline";

#endif

constexpr int32_t kCount = sizeof kIsas / sizeof *kIsas;

bool is_number(int32_t isa) { return isa >= 0 && isa < kCount; }

} // namespace

const Kernels *kernels_of(int32_t isa) {
  return is_number(isa) && kIsas[isa].is_here() ? kIsas[isa].kernels : nullptr;
}

} // namespace fasterseg::cpu

using namespace fasterseg::cpu;

extern "C" int32_t fasterseg_cpu_isa(const char *name) {
  for (int32_t isa = 0; isa < kCount; ++isa) {
    const bool is_here = kIsas[isa].is_here();
    if (name ? !std::strcmp(name, kIsas[isa].name) : is_here) {
      return is_here ? isa : FASTERSEG_CPU_MISSING_ISA;
    }
  }
  return FASTERSEG_CPU_UNKNOWN_ISA;
}

extern "C" const char *fasterseg_cpu_isa_name(int32_t isa) {
  return is_number(isa) ? kIsas[isa].name : nullptr;
}

extern "C" const char *fasterseg_cpu_isas(void) { return kNames; }
