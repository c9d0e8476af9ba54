// The kernels, on the vector extensions of GCC and Clang. A source file per instruction set defines
//   FSG_KERNELS  the table to fill
//   FSG_LANES    floats of a vector
//   FSG_ROWS     label rows whose best logit and class stay in registers
// and includes this. All that is here is local to that file, and nothing of the standard library's
// C++ headers is used: the linker keeps one copy of an inline function, and might keep one that the
// CPU cannot run. Only sums that are written as fused are fused (-ffp-contract=off), so that every
// instruction set gives the same bits.
#pragma once

#include <string.h>

#include "jobs.h"

namespace fasterseg::cpu {
namespace {

constexpr int kLanes = FSG_LANES;
constexpr int kRows = FSG_ROWS;

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));
typedef uint8_t Bytes __attribute__((vector_size(kLanes)));

inline int lesser(int a, int b) { return a < b ? a : b; }
inline int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

inline Floats load(const float *from) {
  Floats value;
  memcpy(&value, from, sizeof value);
  return value;
}

inline void store(float *to, Floats value) { memcpy(to, &value, sizeof value); }

inline Floats spread(float value) { return value - Floats{}; }
inline Ints spread(int32_t value) { return value - Ints{}; }

// Label columns between two logits, at most kLanes of them; at x8 a cell has 8 or 9.
struct Span {
  int column; // the first, in the tile
  int cell;
};

// A tile: columns [x0, x0 + columns) of one image. `scratch` holds two logit rows, interpolated
// along the row; a row lies in the half of its parity.
struct Tile {
  const Labelling &job;
  const float *logits;
  uint8_t *labels;
  int x0, columns;
  float *scratch;
  int held[2]; // rows in the halves
  int count;
  Span spans[kWidestTile];

  Tile(const Labelling &labelling, int64_t image, int x, float *half_rows)
      : job(labelling), logits(job.logits + image * job.classes * job.height * job.width),
        labels(job.labels + image * job.out_height * job.out_width), x0(x),
        columns(lesser(job.tile, job.out_width - x)), scratch(half_rows), held{-1, -1}, count(0) {
    const int end = x + columns;
    for (int cell = job.column_cell[x]; x < end; ++cell) {
      const int cell_end = lesser(job.first_column[cell + 1], end);
      for (; x < cell_end; x += kLanes) {
        spans[count++] = {x - x0, cell};
      }
      x = cell_end;
    }
  }
};

// One row of kCount classes, from plane to plane and from pitch to pitch. Spans are stored as whole
// vectors: what lies beyond one is overwritten by the next.
template <int kCount>
inline void widen(const Tile &tile, const float *source, int64_t plane, float *target) {
  const float *const weights = tile.job.column_weight + tile.x0;
  const int64_t pitch = tile.job.pitch, next = tile.job.width > 1;
  for (int index = 0; index < tile.count; ++index) {
    const Span span = tile.spans[index];
    const Floats right = load(weights + span.column), left = 1.0f - right;
    const float *const from = source + span.cell;
    float *const to = target + span.column;
    for (int number = 0; number < kCount; ++number) {
      const float *const pair = from + number * plane;
      store(to + number * pitch, pair[0] * left + pair[next] * right);
    }
  }
}

// A logit row of all classes, interpolated.
inline const float *hold(Tile &tile, int row) {
  const Labelling &job = tile.job;
  const int64_t plane = job.height * int64_t{job.width}, pitch = job.pitch;
  float *const half = tile.scratch + (row & 1) * job.classes * pitch;
  if (tile.held[row & 1] == row) {
    return half;
  }
  tile.held[row & 1] = row;
  const float *const source = tile.logits + row * int64_t{job.width};
  int number = 0;
  if (job.same_columns) {
    for (; number < job.classes; ++number) {
      memcpy(half + number * pitch, source + number * plane + tile.x0,
             sizeof(float) * static_cast<unsigned>(tile.columns));
    }
  }
  for (; number + 4 <= job.classes; number += 4) {
    widen<4>(tile, source + number * plane, plane, half + number * pitch);
  }
  for (; number < job.classes; ++number) {
    widen<1>(tile, source + number * plane, plane, half + number * pitch);
  }
  return half;
}

inline void put(uint8_t *labels, Ints winner, int count) {
  const Bytes bytes = __builtin_convertvector(winner, Bytes);
  if (count >= kLanes) {
    memcpy(labels, &bytes, kLanes);
    return;
  }
  uint8_t some[kLanes];
  memcpy(some, &bytes, kLanes);
  for (int index = 0; index < count; ++index) {
    labels[index] = some[index];
  }
}

// A run of label rows from y on, between two logit rows.
struct Run {
  const float *top, *bottom;
  int y;
};

// All classes compete for one vector of columns in kCount label rows.
template <int kCount> inline void compete(const Tile &tile, const Run &run, int x) {
  const Labelling &job = tile.job;
  float upper[kCount], lower[kCount];
  Floats best[kCount];
  Ints winner[kCount];
  for (int row = 0; row < kCount; ++row) {
    lower[row] = job.row_weight[run.y + row];
    upper[row] = 1.0f - lower[row];
    best[row] = spread(-__builtin_inff());
    winner[row] = Ints{};
  }
  for (int number = 0; number < job.classes; ++number) {
    const Floats above = load(run.top + number * int64_t{job.pitch} + x);
    const Floats below = load(run.bottom + number * int64_t{job.pitch} + x);
    const Ints id = spread(number);
    for (int row = 0; row < kCount; ++row) {
      const Floats value = above * upper[row] + below * lower[row];
      const Ints wins = value > best[row];
      best[row] = wins ? value : best[row];
      winner[row] = wins ? id : winner[row];
    }
  }
  uint8_t *const labels = tile.labels + (run.y * int64_t{job.out_width} + tile.x0 + x);
  for (int row = 0; row < kCount; ++row) {
    put(labels + row * int64_t{job.out_width}, winner[row], tile.columns - x);
  }
}

// `count` rows of the run, at most kCount, with as many accumulators as there are rows.
template <int kCount> inline void label_run(const Tile &tile, const Run &run, int count) {
  if constexpr (kCount > 1) {
    if (count < kCount) {
      label_run<kCount - 1>(tile, run, count);
      return;
    }
  }
  for (int x = 0; x < tile.columns; x += kLanes) {
    compete<kCount>(tile, run, x);
  }
}

inline void label_tile(Tile &tile, int y, int y_end) {
  const Labelling &job = tile.job;
  while (y < y_end) {
    const int cell = job.row_cell[y];
    int end = y + 1;
    while (end < y_end && job.row_cell[end] == cell) {
      ++end;
    }
    const float *const top = hold(tile, cell);
    const float *const bottom = hold(tile, lesser(cell + 1, job.height - 1));
    // Runs of like length: 9 rows through 4 accumulators are 3 + 3 + 3, not 4 + 4 + 1.
    for (int runs = (end - y + kRows - 1) / kRows; runs > 0; --runs) {
      const int count = (end - y + runs - 1) / runs;
      label_run<kRows>(tile, Run{top, bottom, y}, count);
      y += count;
    }
  }
}

void label(const Labelling &job, int64_t row, int64_t end_row, float *scratch) {
  while (row < end_row) {
    const int64_t image = row / job.out_height;
    const int y = static_cast<int>(row % job.out_height);
    const int y_end = static_cast<int>(lesser(int64_t{job.out_height}, y + (end_row - row)));
    for (int x = 0; x < job.out_width; x += job.tile) {
      Tile tile(job, image, x, scratch);
      label_tile(tile, y, y_end);
    }
    row += y_end - y;
  }
}

// fma rounds once; without the instruction, float64 holds product and sum exactly enough to give
// the same float.
inline float fused(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_fmaf(a, b, c);
#else
  return static_cast<float>(static_cast<double>(a) * b + c);
#endif
}

// Adding 1.5 * 2^23 leaves the integer nearest to a small value, ties to even, in the low bits.
inline uint8_t rounded(float value) {
  const float shifted = value + 12582912.0f;
  uint32_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  return static_cast<uint8_t>(bits);
}

void paint(const Blending &job, int64_t pixel, int64_t end_pixel) {
  uint8_t *output = job.output + 3 * pixel;
  for (; pixel < end_pixel; ++pixel, output += 3) {
    memcpy(output, job.palette + 3 * job.labels[pixel], 3);
  }
}

void blend(const Blending &job, int64_t pixel, int64_t end_pixel) {
  if (!job.frame) {
    paint(job, pixel, end_pixel);
    return;
  }
  float colours[3 * kGroup + 1];
  while (pixel < end_pixel) {
    const int count = static_cast<int>(lesser(int64_t{kGroup}, end_pixel - pixel));
    const uint8_t *const labels = job.labels + pixel;
    for (int index = 0; index < count; ++index) {
      // Four floats at once; the fourth is overwritten by the next pixel.
      memcpy(colours + 3 * index, job.products + 4 * labels[index], 4 * sizeof(float));
    }
    const uint8_t *const frame = job.frame + 3 * pixel;
    uint8_t *const output = job.output + 3 * pixel;
    for (int index = 0; index < 3 * count; ++index) {
      const float value = static_cast<float>(frame[index]);
      output[index] = rounded(fused(value, job.frame_share, colours[index]));
    }
    pixel += count;
  }
}

void normalize(const Normalizing &job, int64_t pixel, int64_t end_pixel) {
  while (pixel < end_pixel) {
    const int64_t image = pixel / job.plane;
    const int64_t count = lesser(end_pixel - pixel, (image + 1) * job.plane - pixel);
    for (int channel = 0; channel < 3; ++channel) {
      const uint8_t *const from = job.frames + 3 * pixel + (2 - channel);
      float *const to = job.output + (2 * image + channel) * job.plane + pixel;
      const double scale = job.scale[channel], shift = job.shift[channel];
      const float *const table = job.table + 256 * channel;
      if (job.exact) {
        for (int64_t index = 0; index < count; ++index) {
          to[index] = static_cast<float>(from[3 * index] * scale + shift);
        }
      } else {
        for (int64_t index = 0; index < count; ++index) {
          to[index] = table[from[3 * index]];
        }
      }
    }
    pixel += count;
  }
}

} // namespace

const Kernels FSG_KERNELS = {label, blend, normalize};

} // namespace fasterseg::cpu
