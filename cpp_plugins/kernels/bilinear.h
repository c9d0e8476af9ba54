// Bilinear resampling with align_corners: which two sources a target lies between, and where.
#pragma once

#include <cmath>

#include "half.h"

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

FSG_KERNEL_FN Float8 blend(const Float8 &a, const Float8 &b, float weight) {
  Float8 mixed;
  FSG_UNROLL
  for (int index = 0; index < 8; ++index) {
    mixed.of[index] = blend(a.of[index], b.of[index], weight);
  }
  return mixed;
}

// A division by a number that a whole launch shares, done once on the host. `inverse` exceeds
// 2^48 / divisor by less than 1, so a quotient of numbers below 2^32 and up to 2^16 is exact.
struct Divider {
  uint32_t divisor;
  uint64_t inverse;
};

inline Divider divider_of(int divisor) {
  const uint64_t wide = static_cast<uint64_t>(divisor);
  return {static_cast<uint32_t>(divisor), ((uint64_t{1} << 48) + wide - 1) / wide};
}

// The product fits 64 bits as long as the quotient is below 2^16 - 1.
FSG_FN uint32_t quotient(uint32_t number, const Divider &by) {
  return static_cast<uint32_t>(number * by.inverse >> 48);
}

// One axis of a resampling: place_of and first_target without their divisions. With one source
// or one target every coordinate is 0 by itself.
struct Axis {
  int sources, targets;
  Divider span, gaps; // targets - 1 and sources - 1, at least 1
  float inverse_span; // correctly rounded
};

inline Axis axis_of(int sources, int targets) {
  const int span = targets > 1 ? targets - 1 : 1, gaps = sources > 1 ? sources - 1 : 1;
  return {sources, targets, divider_of(span), divider_of(gaps), 1.0f / static_cast<float>(span)};
}

// The coordinate of a target, times the span.
FSG_FN uint32_t scaled_on(const Axis &axis, int target) {
  return static_cast<uint32_t>(target) * static_cast<uint32_t>(axis.sources - 1);
}

// Weight of a target in its cell, rounded as a division rounds: the product with the reciprocal
// is off by less than two units, its remainder is exact (both are multiples of one unit of the
// product, below 2^18 of them), and no quotient of numbers this small lies so near the middle
// between two floats that the rounding of the correction could matter.
FSG_FN float weight_on(const Axis &axis, int cell, int target) {
  const float span = static_cast<float>(axis.span.divisor);
  const float rest = static_cast<float>(scaled_on(axis, target) -
                                        static_cast<uint32_t>(cell) * axis.span.divisor);
  const float near = rest * axis.inverse_span;
  return fmaf(fmaf(-near, span, rest), axis.inverse_span, near);
}

FSG_FN Place place_on(const Axis &axis, int target) {
  const int found = static_cast<int>(quotient(scaled_on(axis, target), axis.span));
  const int cell = at_most(found, cells_of(axis.sources) - 1);
  return {cell, weight_on(axis, cell, target)};
}

// As first_target, where targets exceed sources.
FSG_FN int first_on(const Axis &axis, int cell) {
  if (cell >= cells_of(axis.sources)) {
    return axis.targets;
  }
  const uint32_t scaled = static_cast<uint32_t>(cell) * axis.span.divisor;
  return static_cast<int>(quotient(scaled + axis.gaps.divisor - 1, axis.gaps));
}

} // namespace fasterseg
