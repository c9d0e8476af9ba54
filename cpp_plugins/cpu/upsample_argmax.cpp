// Checks of the arguments, places of the labels between the logits, threads.
#include "bilinear.h"
#include "checks.h"
#include "team.h"

namespace fasterseg::cpu {
namespace {

constexpr int kMostClasses = 127;
// Two logit rows of all classes in a first-level cache of 32 KiB.
constexpr int kTileFloats = 4096;
constexpr int kNarrowest = 64;
constexpr uintptr_t kAlignment = 64;

// Where label rows or columns lie between logits, padded for the kernels' last vector.
struct Places {
  std::vector<int> cell, first;
  std::vector<float> weight;

  Places(int targets, int sources, int full)
      : cell(static_cast<std::size_t>(targets)), first(static_cast<std::size_t>(sources) + 1),
        weight(static_cast<std::size_t>(targets + kMostLanes)) {
    for (int target = 0; target < targets; ++target) {
      const Place place = place_of(target, sources, full);
      cell[static_cast<std::size_t>(target)] = place.cell;
      weight[static_cast<std::size_t>(target)] = place.weight;
    }
    for (int source = 0; source <= sources; ++source) {
      first[static_cast<std::size_t>(source)] = first_target(source, sources, full);
    }
  }
};

int32_t status_of(const FasterSegCpuUpsampleArgmax &a) {
  if (!a.logits || !a.labels || (a.overlay && !a.palette)) {
    return FASTERSEG_CPU_NULL_POINTER;
  }
  if (!is_side(a.height) || !is_side(a.width) || !is_side(a.full_height) ||
      !is_side(a.full_width) || !is_side(a.out_height) || !is_side(a.out_width) ||
      a.out_height > a.full_height || a.out_width > a.full_width || a.batch < 1) {
    return FASTERSEG_CPU_BAD_SIZE;
  }
  if (a.classes < 1 || a.classes > kMostClasses || (a.overlay && !is_share(a.alpha))) {
    return FASTERSEG_CPU_BAD_VALUE;
  }
  return status_of_team(a.isa, a.threads);
}

int tile_of(int classes) {
  const int columns = kTileFloats / classes / kMostLanes * kMostLanes;
  return std::min(std::max(columns, kNarrowest), kWidestTile);
}

float *aligned(float *address) {
  const uintptr_t value = reinterpret_cast<uintptr_t>(address);
  return reinterpret_cast<float *>((value + kAlignment - 1) / kAlignment * kAlignment);
}

void run(const FasterSegCpuUpsampleArgmax &a) {
  const Kernels &kernels = *kernels_of(a.isa);
  const Places rows(a.out_height, a.height, a.full_height);
  const Places columns(a.out_width, a.width, a.full_width);
  const int tile = tile_of(a.classes);
  const Labelling job = {a.logits, a.labels, a.classes, a.height, a.width, a.out_height,
                         a.out_width, tile, tile + kMostLanes, a.width == a.full_width,
                         rows.cell.data(), rows.weight.data(), columns.cell.data(),
                         columns.first.data(), columns.weight.data()};
  const Palette palette(a.overlay ? a.palette : nullptr, a.alpha);
  const Blending painting = palette.job(a.frames, a.labels, a.overlay);
  const int64_t all = int64_t{a.batch} * a.out_height;
  const int threads = team_of(a.threads, all);
  const int64_t share = int64_t{2} * job.classes * job.pitch + int64_t{kAlignment / sizeof(float)};
  std::vector<float> scratch(static_cast<std::size_t>(threads * share));
  split(all, threads, [&](int part, int64_t first, int64_t end) {
    kernels.label(job, first, end, aligned(scratch.data() + part * share));
    if (a.overlay) {
      kernels.blend(painting, first * a.out_width, end * a.out_width);
    }
  });
}

} // namespace
} // namespace fasterseg::cpu

extern "C" int32_t fasterseg_cpu_upsample_argmax(const FasterSegCpuUpsampleArgmax *arguments) {
  return fasterseg::cpu::checked(arguments, fasterseg::cpu::status_of, fasterseg::cpu::run);
}
