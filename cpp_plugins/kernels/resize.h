// fp16 NHWC maps to another size, bilinear with align_corners, and their bias and ReLU on the
// way: kernel bodies.
//
// A thread owns one 16-byte vector (eight channels) of one column of the output and does several
// rows of it, so the column's place, the bias and the addresses are found once, and everything a
// thread reads is in flight at once. Neighbouring threads own neighbouring vectors: what a warp
// reads and writes is one run of memory wherever maps are dense. Results are written as any other
// store: the next layer reads them from the second-level cache, so marking them as passing
// through would only send them to memory.
//
// All bodies blend along the row first and then down, with the same operations, so which of them
// runs (that depends on the size of the batch) never changes a bit.
#pragma once

#include "bilinear.h"

namespace fasterseg::resize {

constexpr int kThreads = 128; // small: even small maps are blocks for most multiprocessors
constexpr int kCopied = 4;    // rows of a thread of `copy`
constexpr int kCells = 2;     // gaps between source rows that a thread of `expand` fills

struct Params {
  const Half8 *input;
  const Float8 *bias; // NULL: none
  Half8 *output;
  Axis rows, cols;
  Divider vectors;       // of a pixel
  int items;             // vectors of a row of the output
  int in_step, out_step; // vectors from pixel to pixel
  int relu;
};

// One vector of a column: where its source and target columns begin, and its bias.
struct Column {
  const Half8 *input; // row 0, west of the place
  int right;          // vectors to the east of the place
  float weight;
  Half8 *output; // row 0
  Float8 bias;
};

FSG_FN int in_row(const Params &p) { return p.cols.sources * p.in_step; }
FSG_FN int out_row(const Params &p) { return p.cols.targets * p.out_step; }

// Where there is no bias, -0: adding that changes nothing, not even the sign of a zero.
FSG_KERNEL_FN Float8 bias_of(const Params &p, int vector) {
  if (p.bias) {
    return load(p.bias + vector);
  }
  Float8 none;
  FSG_UNROLL
  for (int index = 0; index < 8; ++index) {
    none.of[index] = -0.0f;
  }
  return none;
}

template <class Team> FSG_KERNEL_FN Column column_of(Team &team, const Params &p, int item) {
  const int x = static_cast<int>(quotient(static_cast<uint32_t>(item), p.vectors));
  const int vector = item - x * static_cast<int>(p.vectors.divisor);
  const Place place = place_on(p.cols, x);
  const Half8 *const input = image_of(p.input, team.image(), p.rows.sources * in_row(p));
  Half8 *const output = image_of(p.output, team.image(), p.rows.targets * out_row(p));
  return {input + place.cell * p.in_step + vector, p.cols.sources > 1 ? p.in_step : 0,
          place.weight, output + x * p.out_step + vector, bias_of(p, vector)};
}

// The two neighbours of a place on one source row.
struct Pair {
  Half8 west, east;
};

FSG_KERNEL_FN Pair pair_on(const Params &p, const Column &column, int row) {
  const Half8 *const west = column.input + at_most(row, p.rows.sources - 1) * in_row(p);
  return {load(west), load(west + column.right)};
}

FSG_KERNEL_FN Float8 between(const Pair &pair, const Column &column) {
  return blend(widened(pair.west), widened(pair.east), column.weight);
}

FSG_KERNEL_FN Half8 finished(const Params &p, const Float8 &sums) {
  const Half8 halves = narrowed(sums);
  return p.relu ? rectified(halves) : halves;
}

FSG_KERNEL_FN Half8 mixed(const Params &p, const Column &column, const Float8 &top,
                          const Float8 &bottom, float weight) {
  Float8 sums;
  FSG_UNROLL
  for (int index = 0; index < 8; ++index) {
    const float above = fmaf(1.0f - weight, top.of[index], column.bias.of[index]);
    sums.of[index] = fmaf(weight, bottom.of[index], above);
  }
  return finished(p, sums);
}

template <class Team> FSG_KERNEL_FN int item_of(Team &team) {
  return team.tile() * kThreads + team.thread();
}

// Equal sizes. Block (tile, slice, image): rows from slice * kCopied on.
template <class Team> FSG_KERNEL_FN void copy(Team &team, const Params &p) {
  const int item = item_of(team), first = team.slice() * kCopied, last = p.rows.targets - 1;
  if (item >= p.items) {
    return;
  }
  const int x = static_cast<int>(quotient(static_cast<uint32_t>(item), p.vectors));
  const int vector = item - x * static_cast<int>(p.vectors.divisor);
  const Half8 *const input = image_of(p.input, team.image(), p.rows.sources * in_row(p)) +
                             x * p.in_step + vector;
  Half8 *const output = image_of(p.output, team.image(), p.rows.targets * out_row(p)) +
                        x * p.out_step + vector;
  Half8 read[kCopied];
  FSG_UNROLL
  for (int row = 0; row < kCopied; ++row) {
    read[row] = load(input + at_most(first + row, last) * in_row(p));
  }
  const bool changes = p.bias || p.relu;
  const Float8 bias = bias_of(p, vector);
  FSG_UNROLL
  for (int row = 0; row < kCopied; ++row) {
    if (changes) {
      Float8 sums = widened(read[row]);
      FSG_UNROLL
      for (int index = 0; index < 8; ++index) {
        sums.of[index] += bias.of[index];
      }
      read[row] = finished(p, sums);
    }
    if (first + row <= last) {
      output[(first + row) * out_row(p)] = read[row];
    }
  }
}

// Any sizes. Block (tile, slice, image): output rows from slice * kRows on, four reads for each.
template <int kRows, class Team> FSG_KERNEL_FN void gather(Team &team, const Params &p) {
  const int item = item_of(team), first = team.slice() * kRows, last = p.rows.targets - 1;
  if (item >= p.items) {
    return;
  }
  const Column column = column_of(team, p, item);
  Pair pairs[kRows][2];
  float weights[kRows];
  FSG_UNROLL
  for (int row = 0; row < kRows; ++row) {
    const Place place = place_on(p.rows, at_most(first + row, last));
    weights[row] = place.weight;
    pairs[row][0] = pair_on(p, column, place.cell);
    pairs[row][1] = pair_on(p, column, place.cell + 1);
  }
  FSG_UNROLL
  for (int row = 0; row < kRows; ++row) {
    if (first + row <= last) {
      column.output[(first + row) * out_row(p)] =
          mixed(p, column, between(pairs[row][0], column), between(pairs[row][1], column),
                weights[row]);
    }
  }
}

// More rows than before. Block (tile, slice, image): the output rows in the cells from
// slice * kCells on. Each source row is read and blended along the row once for all of them.
template <class Team> FSG_KERNEL_FN void expand(Team &team, const Params &p) {
  const int item = item_of(team), first = team.slice() * kCells;
  if (item >= p.items) {
    return;
  }
  const Column column = column_of(team, p, item);
  Pair pairs[kCells + 1];
  FSG_UNROLL
  for (int row = 0; row <= kCells; ++row) {
    pairs[row] = pair_on(p, column, first + row);
  }
  Float8 top = between(pairs[0], column);
  int y = first_on(p.rows, first);
  FSG_UNROLL
  for (int cell = 0; cell < kCells; ++cell) {
    const Float8 bottom = between(pairs[cell + 1], column);
    const int end = first_on(p.rows, first + cell + 1);
    FSG_NO_UNROLL
    for (; y < end; ++y) {
      const float weight = weight_on(p.rows, first + cell, y);
      column.output[y * out_row(p)] = mixed(p, column, top, bottom, weight);
    }
    top = bottom;
  }
}

} // namespace fasterseg::resize
