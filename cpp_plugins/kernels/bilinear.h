// Bilinear resampling with align_corners: which two sources a target lies between, and where.
#pragma once

#include <cmath>

#include "portable.h"

namespace fasterseg {

// A cell is the gap between two neighbouring sources. `value(target) =
// (1 - weight) * source[cell] + weight * source[cell + 1]`; a single source is cell 0, weight 0.
struct Place {
  int cell;
  float weight;
};

FSG_FN constexpr int cells_of(int sources) { return sources > 1 ? sources - 1 : 1; }

// Place of a target. The coordinate target * (sources - 1) / (targets - 1) is kept as a fraction
// of integers, so the cell is exact at every size and the weight correctly rounded; a float
// coordinate would lose up to 1e-5 pixels at the right border of a large map. The last target
// belongs to the last cell, with weight 1.
// Needs 0 <= target < targets and sides up to 65535 (the product fits 32 bits).
FSG_FN Place place_of(int target, int sources, int targets) {
  if (sources <= 1 || targets <= 1) {
    return {0, 0.0f};
  }
  const uint32_t span = static_cast<uint32_t>(targets - 1);
  const uint32_t scaled = static_cast<uint32_t>(target) * static_cast<uint32_t>(sources - 1);
  uint32_t cell = scaled / span;
  if (cell > static_cast<uint32_t>(sources - 2)) {
    cell = static_cast<uint32_t>(sources - 2);
  }
  const uint32_t rest = scaled - cell * span;
  return {static_cast<int>(cell), static_cast<float>(rest) / static_cast<float>(span)};
}

// First target of a cell; `targets` for cells past the last. The targets of cell c are
// [first_target(c), first_target(c + 1)).
FSG_FN int first_target(int cell, int sources, int targets) {
  if (cell <= 0) {
    return 0;
  }
  if (cell >= cells_of(sources) || targets <= 1) {
    return targets;
  }
  const uint32_t gaps = static_cast<uint32_t>(sources - 1);
  const uint32_t scaled = static_cast<uint32_t>(cell) * static_cast<uint32_t>(targets - 1);
  const uint32_t first = scaled / gaps + (scaled % gaps != 0);
  return at_most(static_cast<int>(first), targets);
}

// (1 - weight) * a + weight * b: exactly a at weight 0 and exactly b at weight 1.
FSG_FN float blend(float a, float b, float weight) {
  return fmaf(weight, b, (1.0f - weight) * a);
}

} // namespace fasterseg
