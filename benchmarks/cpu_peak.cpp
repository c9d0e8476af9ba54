// Arithmetic peaks of a CPU: multiply-adds between registers, so nothing but the units counts.
// Compiled and read by cpu_peak.py; prints one JSON object: "precision/instruction" -> GOP/s.
//
//     cpu_peak THREADS TRIES

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace {

constexpr long kRounds = 200000;

// Twelve sums that do not wait for each other hide the latency of two units. The whole loop is one
// statement, because a compiler would keep the sums in memory between several.
constexpr int kSums = 12;

#define TWELVE(LINE) \
  LINE("0") LINE("1") LINE("2") LINE("3") LINE("4") LINE("5") \
  LINE("6") LINE("7") LINE("8") LINE("9") LINE("10") LINE("11")

struct Unit {
  const char* precision;
  const char* instruction;
  double operations;  // of one instruction, a multiply-add being two
  bool present;
  void (*run)();
};

#if defined(__x86_64__)

#define CLEAR(N) "vpxor %%xmm" N ", %%xmm" N ", %%xmm" N "\n"
#define REGISTERS                                                                               \
  "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
      "xmm11", "xmm12"
#define LOOP(LINE)                                                                       \
  long rounds = kRounds;                                                                 \
  asm volatile(TWELVE(CLEAR) CLEAR("12") "1:\n" TWELVE(LINE) "dec %0\njnz 1b\nvzeroupper" \
               : "+r"(rounds)                                                            \
               :                                                                         \
               : REGISTERS)
#define FMA_512(N) "vfmadd231ps %%zmm12, %%zmm12, %%zmm" N "\n"
#define FMA_256(N) "vfmadd231ps %%ymm12, %%ymm12, %%ymm" N "\n"
#define BF16_512(N) "vdpbf16ps %%zmm12, %%zmm12, %%zmm" N "\n"
#define INT8_512(N) "vpdpbusd %%zmm12, %%zmm12, %%zmm" N "\n"

__attribute__((target("avx512f"))) void fp32_avx512() { LOOP(FMA_512); }
__attribute__((target("avx2,fma"))) void fp32_avx2() { LOOP(FMA_256); }
__attribute__((target("avx512f"))) void bf16_avx512() { LOOP(BF16_512); }
__attribute__((target("avx512f"))) void int8_avx512() { LOOP(INT8_512); }

std::vector<Unit> units() {
  __builtin_cpu_init();
  const bool wide = __builtin_cpu_supports("avx512f");
  const bool narrow = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return {
      {"fp32", "avx512 vfmadd231ps", 32, wide, fp32_avx512},
      {"fp32", "avx2 vfmadd231ps", 16, narrow, fp32_avx2},
      {"bf16", "avx512 vdpbf16ps", 64, wide && __builtin_cpu_supports("avx512bf16"), bf16_avx512},
      {"int8", "avx512 vpdpbusd", 128, wide && __builtin_cpu_supports("avx512vnni"), int8_avx512},
  };
}

#elif defined(__aarch64__)

#define CLEAR(N) "movi v" N ".4s, #0\n"
#define REGISTERS \
  "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12"
#define LOOP(LINE)                                                                \
  long rounds = kRounds;                                                          \
  asm volatile(TWELVE(CLEAR) CLEAR("12") "1:\n" TWELVE(LINE) "subs %0, %0, #1\nb.ne 1b" \
               : "+r"(rounds)                                                     \
               :                                                                  \
               : REGISTERS)
#define FMLA(N) "fmla v" N ".4s, v12.4s, v12.4s\n"
#define SDOT(N) "sdot v" N ".4s, v12.16b, v12.16b\n"

void fp32_neon() { LOOP(FMLA); }
__attribute__((target("arch=armv8.2-a+dotprod"))) void int8_neon() { LOOP(SDOT); }

std::vector<Unit> units() {
  const bool dot = (getauxval(AT_HWCAP) & (1ul << 20)) != 0;  // HWCAP_ASIMDDP
  return {{"fp32", "neon fmla", 8, true, fp32_neon}, {"int8", "neon sdot", 32, dot, int8_neon}};
}

#else

std::vector<Unit> units() { return {}; }

#endif

// The best of several tries: whatever interrupts one only makes it slower.
double best_gops(const Unit& unit, int threads, int tries) {
  double best = 0;
  for (int attempt = 0; attempt < tries; ++attempt) {
    const auto begin = std::chrono::steady_clock::now();
    std::vector<std::thread> others;
    for (int thread = 1; thread < threads; ++thread) others.emplace_back(unit.run);
    unit.run();
    for (std::thread& other : others) other.join();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    const double operations = unit.operations * kSums * double(kRounds) * threads;
    best = std::max(best, operations / seconds.count() / 1e9);
  }
  return best;
}

}  // namespace

int main(int count, char** arguments) {
  const int threads = count > 1 ? std::atoi(arguments[1]) : 1;
  const int tries = count > 2 ? std::atoi(arguments[2]) : 50;
  if (threads < 1 || tries < 1) {
    std::fprintf(stderr, "usage: cpu_peak THREADS TRIES, both 1 or more\n");
    return 2;
  }
  std::printf("{");
  const char* separator = "";
  for (const Unit& unit : units()) {
    if (!unit.present) continue;
    const double gops = best_gops(unit, threads, tries);
    std::printf("%s\"%s/%s\": %.1f", separator, unit.precision, unit.instruction, gops);
    separator = ", ";
  }
  std::printf("}\n");
  return 0;
}
